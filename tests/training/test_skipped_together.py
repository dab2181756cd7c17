"""Out of memory and bad numbers on one of two ranks: both do the same, and neither waits for the other in vain."""

import json
import sys

import pytest
import torch

from tests.training import runs
from tests.training.injected import Fault, on_two_ranks, said, weights_of
from tests.training.test_steps import run_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes is set up by hand elsewhere")
STRATEGIES = ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)]


def two(folder, strategy, *more):
    settings = ("trainer.devices=2", f"trainer.strategy={strategy}", "trainer.log_every=1", "trainer.gradient_clip=1")
    return run_of(folder, *settings, *more, f"out={folder / 'out'}")


def summary(folder):
    return json.loads((folder / "out" / "summary.json").read_text())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_are_halved_and_skipped_on_both(tmp_path, strategy):
    faults = [
        Fault("forward", 0, rank=1, above=1),
        Fault("backward", 1, rank=1),
        Fault("midway", 2, rank=0),
        Fault("module", 3, rank=1),
    ]
    assert on_two_ranks(faults, two(tmp_path, strategy, "trainer.max_steps=7"), tmp_path) == [0, 0], said(tmp_path)
    one, other = weights_of(tmp_path, 0), weights_of(tmp_path, 1)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    told = summary(tmp_path)
    assert (told["steps"], told["skipped_oom"], told["skipped_nonfinite"]) == (7, 2, 1)
    norms = [bool(row["gradient_norm"]) for row in runs.rows(tmp_path / "out")]
    assert norms == [True, False, False, False, True, True, True]
    steps = {int(state["step"]) for state in runs.checkpoint(tmp_path / "out")["optimizer_states"][0]["state"].values()}
    assert steps == {4}
    assert len(list((tmp_path / "out" / "replay").glob("*.ckpt"))) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_halved_on_one_is_the_step_of_both(tmp_path, strategy):
    """The first step's moments are those of its gradient."""
    moments = []
    for name, faults in {
        "whole": [],
        "halved": [Fault("backward", 0, rank=0, above=2), Fault("forward", 0, rank=1, above=1)],
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        made = two(folder, strategy, "trainer.max_steps=1", "data.loader.max_batch_size=5")
        assert on_two_ranks(faults, made, folder) == [0, 0], said(folder)
        moments.append([state["exp_avg"] for state in
                        runs.checkpoint(folder / "out")["optimizer_states"][0]["state"].values()])  # fmt: skip
    largest = max(moment.abs().max() for moment in moments[0])
    assert max((a - b).abs().max() for a, b in zip(*moments, strict=True)) < 1e-6 * largest


def test_many_in_a_row_end_both(tmp_path):
    faults = [Fault("module", batch, rank=1) for batch in range(7)]
    made = two(tmp_path, "ddp", "trainer.max_steps=9", "trainer.stop_after_skipped=2", "trainer.checkpoint_every=1")
    assert on_two_ranks(faults, made, tmp_path) == [2, 2], said(tmp_path)
    assert "error: step 2: 2 optimizer steps in a row were skipped" in said(tmp_path)
    assert summary(tmp_path)["skipped_nonfinite"] == 2
    assert runs.checkpoint(tmp_path / "out")["global_step"] == 1
