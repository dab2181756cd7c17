"""Manifests that were damaged or altered, or are of something else: what of them is believed."""

import json

import pytest

from app.errors import UserError
from app.files.seal import sealed
from tests.training.runs import files


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"format": 1, "designs": []}', "older run, without hashes"),
        ('{"format": 9}', "no manifest of this program, or of a later version"),
        ('{"format": 2, "designs": []}', "older run, without hashes"),
        ('{"format": 3, "designs": []}', "a part of it is missing"),
        ('{"format": 3', "no JSON: it was cut off or altered"),
        ("[]", "no manifest of this program"),
    ],
)
def test_other_manifests_are_refused(again, tmp_path, text, told):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text(text)
    with pytest.raises(UserError, match=told):
        again()
    assert files(tmp_path / "out") == {"manifest.json"}


def test_a_manifest_that_was_altered_is_not_believed(again, tmp_path):
    """Nothing outside the folder is looked at or touched, and no record stands that does not fit its design, not even
    if it is sealed."""
    _, first = again()
    outside = tmp_path / "outside.pdb"
    outside.write_text("mine")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    manifest["designs"][0]["files"]["../outside.pdb"] = "0" * 64
    manifest["designs"][1] |= {"seed": 1}
    manifest["designs"][2] |= {"files": "all"}
    manifest["designs"][3].pop("sequence")
    manifest["designs"] = [sealed(record) for record in manifest["designs"]]
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    model, second = again()
    assert sorted(model.sizes) == [(1, 9), (2, 14)]
    assert second["designs"] == first["designs"]
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("harm", ["cut", "zeros", "altered", "removed"])
def test_a_manifest_that_is_damaged_or_lost_is_made_again(again, tmp_path, harm):
    _, first = again()
    path = tmp_path / "out/manifest.json"
    whole = path.read_bytes()
    if harm == "removed":
        path.unlink()
    else:
        cut = {"cut": whole[:-40], "zeros": b"\0" * len(whole), "altered": whole.replace(b'"steps": 6', b'"steps": 7')}
        path.write_bytes(cut[harm])
    model, second = again()
    assert model.calls == 0 and second["designs"] == first["designs"]
    path.unlink()
    with pytest.raises(UserError, match="seed: 3 -> 4"):
        again(seed=4)
    (tmp_path / "out/.manifest.json").unlink()
    with pytest.raises(UserError, match="which would be mixed up with this run"):
        again()


def test_a_folder_that_was_emptied_takes_another_run(again, tmp_path):
    out = tmp_path / "out"
    again(lengths=[9])
    for name in files(out) - {".manifest.json"}:
        (out / name).unlink()
    (out / "structures").rmdir()
    assert again(lengths=[9], seed=4)[1]["done"] == 2


@pytest.mark.parametrize(
    "change",
    [{"sequence": "W" * 9}, {"sequence": None}, {"designed": {}}, {"flags": None}, {"id": "mine"}, {"sha256": None}, 7],
)
def test_a_record_that_was_altered_is_not_believed(again, tmp_path, change):
    _, first = again()
    before = (tmp_path / "out/sequences.fasta").read_text()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    manifest["designs"][0] = change if isinstance(change, int) else manifest["designs"][0] | change
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    model, second = again()
    assert model.sizes == [(1, 9)]
    assert second["designs"] == first["designs"] and (tmp_path / "out/sequences.fasta").read_text() == before
