"""infer.py on a GPU: all that it writes, and that designs do not depend on what they were made beside."""

import csv
import json

import numpy as np
import pytest

import infer
from app.devices import NVIDIA
from app.structure.read import read_structure
from tests.factories import saved, tiny_module
from tests.sampling.made_inputs import write_structure

pytestmark = pytest.mark.gpu

LENGTHS = "lengths=['9+6',14]"
EVERYTHING = ["trajectories=true", "step_records=true"]
TASKS = {
    "unconditional": [LENGTHS, "samples_per_length=8"],
    "forward_folding": ["samples=3"],
    "inverse_folding": ["samples=3", "temperature=0.5"],
    "partial": ["fix=[A2-4,B]", "what=both", "samples=3"],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return saved(tiny_module(), tmp_path_factory.mktemp("run") / "last.ckpt")


@pytest.fixture
def run(tmp_path, checkpoint):
    """A task of `TASKS` into `tmp_path/out` -> the manifest."""
    native = write_structure(tmp_path / "native.pdb", 9, 6)

    def go(task, *arguments, out="out"):
        given = [] if task == "unconditional" else [f"input={native}"]
        command = [f"ckpt={checkpoint}", f"out={tmp_path / out}", f"device={NVIDIA}", "steps=6", f"task={task}"]
        assert infer.main([*command, *given, *TASKS[task], *arguments]) == 0
        return json.loads((tmp_path / out / "manifest.json").read_text())

    return go


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_written_whole(run, tmp_path, task):
    manifest = run(task, *EVERYTHING)
    assert manifest["done"] == manifest["requested"] > 0 and (tmp_path / "out" / "report.html").exists()
    for design in manifest["designs"]:
        kinds = {name.partition("/")[0] for name in design["files"]}
        assert {"structures", "trajectories", "steps"} <= kinds
        protein = read_structure(tmp_path / "out" / f"structures/{design['id']}.cif")
        assert ((protein.b_factors >= 0) & (protein.b_factors <= 100)).all() and protein.b_factors.any()
        with (tmp_path / "out" / f"steps/{design['id']}.csv").open() as file:
            assert len(list(csv.reader(file))) > 6


@pytest.mark.parametrize("task", TASKS)
def test_designs_do_not_depend_on_the_batch(run, tmp_path, task):
    """In float32: they differ by no more than one unit of the files' last digit."""
    alone = run(task, "max_batch_size=1", out="alone")
    for size in (3, 8):
        together = run(task, f"max_batch_size={size}", out=str(size))
        for one, other in zip(alone["designs"], together["designs"], strict=True):
            assert (one["id"], one["sequence"]) == (other["id"], other["sequence"])
            name = f"structures/{one['id']}.pdb"
            ours, theirs = (read_structure(tmp_path / folder / name) for folder in ("alone", str(size)))
            np.testing.assert_allclose(ours.atom37, theirs.atom37, rtol=0, atol=1.5e-3)


def test_what_was_damaged_is_made_again_as_it_was(run, tmp_path):
    """By itself, where it was one of a batch before: within a unit of the files' last digit."""
    first = run("unconditional")["designs"]
    name = f"structures/{first[3]['id']}.pdb"
    before = read_structure(tmp_path / "out" / name)
    (tmp_path / "out" / name).write_text("damaged")
    again = run("unconditional")["designs"]
    assert again[:3] + again[4:] == first[:3] + first[4:]
    assert all(again[3][key] == first[3][key] for key in ("id", "sequence", "seed", "status"))
    np.testing.assert_allclose(read_structure(tmp_path / "out" / name).atom37, before.atom37, rtol=0, atol=1.5e-3)
