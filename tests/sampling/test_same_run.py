"""Which run a folder holds: another one is refused there, with the difference."""

import pytest

from app.errors import UserError
from tests.sampling.made_inputs import UNCONDITIONAL, write_structure
from tests.sampling.runs import Counting, contents


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 4}, "seed: 3 -> 4"),
        ({"steps": 7, "seed": 4}, "steps: 6 -> 7; seed: 3 -> 4"),
        ({"lengths": [9, 15]}, "lengths.1: 14 -> 15"),
        ({"samples_per_length": 3}, "samples_per_length: 2 -> 3"),
        ({"precision": "bfloat16"}, "precision: float32 -> bfloat16"),
    ],
)
def test_a_changed_setting_is_refused_with_the_difference(again, tmp_path, changes, told):
    again()
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match="holds a run that was asked for something else") as caught:
        again(**changes)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_a_changed_sampler_or_checkpoint_is_refused(run, tmp_path):
    for name, text in {"a": "one", "b": "other", "moved": "one"}.items():
        (tmp_path / name).write_text(text)
    asked = UNCONDITIONAL | {"out": tmp_path / "out"}
    run(**asked, ckpt=tmp_path / "a")
    with pytest.raises(UserError, match=r"ckpt: sha256 [0-9a-f]{16} -> sha256 [0-9a-f]{16}"):
        run(**asked, ckpt=tmp_path / "b")
    with pytest.raises(UserError, match=r"sampler.name: euler -> multiflow_legacy"):
        run(sampler="multiflow_legacy", **asked, ckpt=tmp_path / "a")
    _, manifest = run(**asked, ckpt=tmp_path / "moved")
    assert manifest["done"] == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"max_batch_size": 1, "max_residues_squared": 300, "progress_bar": True, "report": False},
        {"cuda_graph": False, "device": "cpu", "precision": "auto", "temperature": 0.1},
    ],
)
def test_what_cannot_change_a_design_may_change(again, changes):
    _, first = again()
    model, second = again(**changes)
    assert model.calls == 0 and second["designs"] == first["designs"]


def test_inputs_count_by_their_content(run, tmp_path):
    write_structure(tmp_path / "in/one.pdb", 9)
    write_structure(tmp_path / "in/two.pdb", 9, seed=1)
    asked = {"task": "inverse_folding", "out": tmp_path / "out"}
    _, first = run(**asked, input=tmp_path / "in")
    assert first["inputs"].keys() == {"one.pdb", "two.pdb"}
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    model = Counting()
    run(model, **asked, input=tmp_path / "elsewhere")
    assert model.calls == 0
    write_structure(tmp_path / "elsewhere/two.pdb", 9, seed=2)
    with pytest.raises(UserError, match=r"input two.pdb: sha256 [0-9a-f]{16} -> sha256 [0-9a-f]{16}"):
        run(**asked, input=tmp_path / "elsewhere")
    (tmp_path / "elsewhere/two.pdb").unlink()
    with pytest.raises(UserError, match=r"input two.pdb: sha256 [0-9a-f]{16} -> \(absent\)"):
        run(**asked, input=tmp_path / "elsewhere")
