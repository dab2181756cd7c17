"""Several batches, on one rank or two, make the gradient of one large batch."""

import subprocess
import sys

import pytest
import torch

from app.errors import UserError
from app.training.run import train
from tests.training import spread
from tests.training.runs import ROOT, arguments, one_thread

STILL = ("model.trunk.stages.0.transformer_dropout=0.0", "flow.self_condition_share=0.0", "data.loader.bucket=16")
LARGE = "data.loader.max_batch_size=64"  # all 13 examples, of 8 to 10 residues


def run_of(folder, *more: str) -> list[str]:
    """A new run with these arguments in place of those of the same keys."""
    more = (*STILL, *more)
    kept = [text for text in arguments(folder) if text.partition("=")[0] not in {one.partition("=")[0] for one in more}]
    return [*kept, *more]


def same(found: dict, expected: dict, relative: float = 1e-6) -> None:
    largest = max(one.abs().max() for one in expected.values())
    assert found.keys() == expected.keys() and largest > 0
    off = {name: ((found[name] - expected[name]).abs().max() / largest).item() for name in expected}
    assert max(off.values()) < relative, max(off.items(), key=lambda each: each[1])


@pytest.mark.parametrize(
    "steps", ["trainer.accumulate=5", "trainer.residues_per_step=60", "trainer.residues_per_step=40"]
)
def test_accumulated_gradients_are_that_of_one_large_batch(tmp_path, steps):
    """13 examples of 116 residues in batches of 3, the last of 1. A target of 60 leaves too few for a second step; one
    of 40 does not."""
    small = run_of(tmp_path, "data.loader.max_batch_size=3", steps, f"out={tmp_path / 'parts'}")
    found = spread.gradient_of(tmp_path / "a", *small)
    expected = spread.gradient_of(tmp_path / "b", *run_of(tmp_path, LARGE, f"out={tmp_path / 'whole'}"))
    if steps.endswith("=40"):
        with pytest.raises(AssertionError):
            same(found, expected)
    else:
        same(found, expected)


def test_a_target_that_no_epoch_holds_is_refused(tmp_path):
    out = ("trainer.max_steps=1", f"out={tmp_path / 'out'}")
    with pytest.raises(UserError, match="residues_per_step=500: an epoch of these data has 116 residues: lower it"):
        train(run_of(tmp_path, "trainer.residues_per_step=500", *out))
    with pytest.raises(UserError, match="accumulate and residues_per_step: give one"):
        train(run_of(tmp_path, "trainer.residues_per_step=50", "trainer.accumulate=2", *out))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes is set up by hand elsewhere")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    "steps",
    [("data.loader.max_batch_size=4", "trainer.residues_per_step=116"), ("data.loader.max_batch_size=7",)],
    ids=["several batches", "one each"],
)
def test_two_ranks_make_the_gradient_of_one_process_that_has_both_batches(tmp_path, strategy, steps):
    """13 examples in two batches of 4 and 4 or 1 on two ranks, or one batch of 7 and one of 6."""
    two = run_of(tmp_path, *steps, f"trainer.strategy={strategy}", "trainer.devices=2", f"out={tmp_path / 'two'}")
    command = [sys.executable, spread.__file__, str(tmp_path / "a"), *two]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=one_thread(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "a", weights_only=True)
    same(found, spread.gradient_of(tmp_path / "b", *run_of(tmp_path, LARGE, f"out={tmp_path / 'whole'}")))
