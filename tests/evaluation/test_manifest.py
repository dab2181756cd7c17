"""The manifest as whoever looks at a run's designs reads it, damaged ones too."""

import json

import pytest

from app.errors import UserError
from app.evaluation.manifest import manifest_of
from app.files.manifest import COPY, MANIFEST
from app.files.seal import sealed

WHOLE = {"seed": 1, "designs": [{"id": "a"}]}
ALTERED = sealed({"seed": 1}) | {"seed": 7, "designs": []}
DAMAGED = ["", "[]", "{}", '{"designs": 3}', "[" * 100_000, json.dumps(WHOLE)[:-3], json.dumps(ALTERED)]


@pytest.mark.parametrize("text", DAMAGED)
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    for copy in (None, text):
        if copy is not None:
            (tmp_path / COPY).write_text(copy)
        with pytest.raises(UserError, match=r"manifest\.json: damaged, or not the manifest of a run: remove it"):
            manifest_of(tmp_path)


@pytest.mark.parametrize("text", [*DAMAGED, None])
def test_the_copy_serves_where_the_manifest_is_damaged_or_gone(tmp_path, text):
    said = []
    (tmp_path / "structures").mkdir()
    (tmp_path / COPY).write_text(json.dumps(WHOLE))
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    assert manifest_of(tmp_path, said.append) == WHOLE
    assert said == [f"manifest.json: {'not there' if text is None else 'damaged'}; its copy, .manifest.json, serves"]
    (tmp_path / MANIFEST).write_text(json.dumps(WHOLE | {"seed": 2}))
    assert manifest_of(tmp_path, said.append)["seed"] == 2 and len(said) == 1


def test_a_folder_without_one_is_one_of_structures(tmp_path):
    assert manifest_of(tmp_path) == {}
    (tmp_path / COPY).write_text(json.dumps(WHOLE))
    assert manifest_of(tmp_path) == {}, "the folder was emptied"
    (tmp_path / "a.pdb").write_text("")
    (tmp_path / COPY).write_text("{")
    assert manifest_of(tmp_path) == {}
