"""Learning-rate schedules: their shape, and that a run that is resumed, or given another one, is where it should be."""

import itertools
import math

import pytest
import torch

from app.errors import UserError
from app.training.run import train
from app.training.schedule import ScheduleSettings, factor
from tests.training import runs
from tests.training.runs import arguments, assert_same_weights, rows

COSINE = ("schedule=cosine", "schedule.warmup_steps=3", "schedule.total_steps=9", "schedule.final=0.1")


def rates(settings: dict, steps: int, max_steps: int = -1) -> list[float]:
    at = factor(ScheduleSettings(**settings), max_steps)
    return [at(step) for step in range(steps)]


def test_constant_and_warm_up():
    assert rates({}, 4) == [1, 1, 1, 1]
    assert rates({"warmup_steps": 4}, 6) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_a_cosine_falls_from_all_to_its_final_share_and_stays():
    found = rates({"kind": "cosine", "warmup_steps": 2, "total_steps": 12, "final": 0.2}, 20)
    assert found[:3] == [0.5, 1, 1]
    assert all(late < early for early, late in itertools.pairwise(found[2:13]))
    assert found[7] == pytest.approx(0.6)  # half way, half of what is lost
    assert found[12:] == [pytest.approx(0.2)] * 8
    assert found[4] == pytest.approx(0.2 + 0.8 * (1 + math.cos(0.2 * math.pi)) / 2)
    assert rates({"kind": "cosine"}, 11, max_steps=10)[10] == 0


def logged(out) -> list[float]:
    return [float(row["lr"]) for row in rows(out)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 11 steps under a cosine that ends at 9."""
    folder = tmp_path_factory.mktemp("whole")
    train(arguments(folder, *COSINE, "trainer.max_steps=11", "trainer.log_every=1", f"out={folder / 'out'}"))
    return folder


def test_the_log_has_the_rate_that_each_step_was_taken_with(whole):
    at = factor(ScheduleSettings(kind="cosine", warmup_steps=3, total_steps=9, final=0.1), -1)
    assert logged(whole / "out") == pytest.approx([1e-3 * at(step) for step in range(11)], rel=1e-4)


@pytest.mark.parametrize("stops", [(2,), (3, 7), (10,)])
def test_a_resumed_run_goes_on_where_the_schedule_was(whole, tmp_path, stops):
    first, *more = (*stops, 11)
    train(arguments(whole, *COSINE, f"trainer.max_steps={first}", "trainer.log_every=1", f"out={tmp_path / 'out'}"))
    for steps in more:
        train([f"resume={tmp_path / 'out/checkpoints/last.ckpt'}", f"trainer.max_steps={steps}"])
    assert_same_weights(whole / "out", tmp_path / "out")
    assert rows(whole / "out") == rows(tmp_path / "out")


def test_an_accumulated_step_counts_once(tmp_path):
    more = ("trainer.accumulate=2", "trainer.max_steps=6", "trainer.log_every=1")
    train(arguments(tmp_path, "schedule=warmup", "schedule.warmup_steps=4", *more, f"out={tmp_path / 'out'}"))
    assert logged(tmp_path / "out") == pytest.approx([1e-3 * share for share in (0.25, 0.5, 0.75, 1, 1, 1)])


def test_another_schedule_or_rate_takes_over_where_the_run_stands(tmp_path):
    """From a checkpoint that knows no schedule, and back; the moments and the rest of the optimizer stay."""
    out = tmp_path / "out"
    train(arguments(tmp_path, "trainer.max_steps=2", "trainer.log_every=1", f"out={out}"))
    assert runs.checkpoint(out)["lr_schedulers"] == []
    resume = f"resume={out / 'checkpoints' / 'last.ckpt'}"
    train([resume, *COSINE, "optimizer.lr=3e-3", "trainer.max_steps=4"])
    train([resume, "schedule=constant", "trainer.max_steps=5"])
    train([resume, "optimizer.lr=2e-3", "schedule.warmup_steps=8", "trainer.max_steps=6"])
    assert logged(out) == pytest.approx([1e-3, 1e-3, 3e-3, 3e-3, 3e-3, 2e-3 * 6 / 8])
    assert runs.checkpoint(out)["optimizer_states"][0]["state"][0]["step"] == 6


def test_each_group_is_scaled(tmp_path):
    groups = "optimizer.groups=[{match: 'head.*', lr_scale: 0.5}]"
    more = ("schedule=warmup", "schedule.warmup_steps=4", "trainer.max_steps=1")
    train(arguments(tmp_path, groups, *more, f"out={tmp_path / 'out'}"))
    saved = runs.checkpoint(tmp_path / "out")
    assert saved["lr_schedulers"][0]["base_lrs"] == [1e-3, 5e-4]
    assert [group["lr"] for group in saved["optimizer_states"][0]["param_groups"]] == pytest.approx([5e-4, 2.5e-4])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["schedule=cosine"], "needs an end beyond schedule.warmup_steps: give trainer.max_steps"),
        (["schedule=cosine", "trainer.max_steps=1000"], "needs an end beyond"),
        (["schedule=cosine", "schedule.total_steps=7", "schedule.warmup_steps=7"], "leaves nothing of total_steps=7"),
        (["schedule.final=0.1"], "schedule.final has no effect: schedule.kind=constant has no end"),
        (["schedule=linear"], "schedule=linear"),
        (["schedule.final=2", "schedule=cosine"], "schedule.final=2"),
        (["schedule.warmup=2"], "schedule.warmup"),
    ],
)
def test_mistakes_are_told(tmp_path, typed, said):
    with pytest.raises(UserError, match=said):
        train(arguments(tmp_path, *typed, f"out={tmp_path / 'out'}"))
    assert not (tmp_path / "out").exists()


def test_the_state_is_plain(whole):
    """It is read by torch's weights-only unpickler, with nothing allowed besides."""
    (state,) = torch.load(whole / "out/checkpoints/last.ckpt", weights_only=True)["lr_schedulers"]
    assert state["last_epoch"] == 11
