"""Training on the demo set, killed at uniformly random moments: nothing is lost and nothing is done twice."""

import sys
from pathlib import Path
from random import Random

import pytest

from tests.training import lives, runs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks processes that have loaded torch")

COMMAND = [
    *runs.MODEL,
    "data=demo",
    "data.split=held_out",  # 32 chains, so that epochs end within a run
    "data.loader.max_residues_squared=5000",
    "trainer=cpu",
    "trainer.checkpoint_every=3",
    "trainer.log_every=4",
    "resume=auto",
]
SLOW_DISK = 0.05  # seconds a flush: saving takes about half of a run's time, and of the kills
VALIDATION = [
    "data.split=train",  # which has chains held out; an epoch of it does not end within a run
    "trainer.validate_every=2",
    "validation.examples=4",
    "validation.times=[0.5]",
    "validation.lengths=[10]",
    "validation.designs=1",
    "validation.folds=1",
    "validation.steps=2",
]
SETTINGS = {  # ranks, optimizer steps, what else is typed
    "plain": (1, 30, []),
    "accumulating, with workers": (1, 10, ["trainer.accumulate=2", "data.loader.num_workers=2"]),
    "ddp": (2, 14, ["trainer.devices=2", "trainer.strategy=ddp"]),
    "fsdp": (2, 10, ["trainer.devices=2", "trainer.strategy=fsdp"]),
    "validating, with workers": (1, 10, [*VALIDATION, "data.loader.num_workers=1"]),
    "validating, ddp": (2, 10, [*VALIDATION, "trainer.devices=2", "trainer.strategy=ddp"]),
}


def kill(setting: str, kills: int, folder: Path) -> None:
    """Runs that are killed so often, all in all, each held to one that was not."""
    (ranks, steps, more), random = SETTINGS[setting], Random(0)
    typed = {text.partition("=")[0]: text for text in (*COMMAND, f"trainer.max_steps={steps}", *more)}
    command, whole, fates, trained = list(typed.values()), folder / "whole", [], 0
    seconds = lives.live(command, whole, ranks, SLOW_DISK)
    assert [int(row["step"]) for row in runs.rows(whole) if row["train_loss"]] == [*range(4, steps, 4), steps]
    validated = [int(row["step"]) for row in runs.rows(whole) if not row["train_loss"]]
    assert validated == (list(range(2, steps + 1, 2)) if set(VALIDATION) <= set(command) else [])
    while (struck := sum(len(fate.kills) for fate in fates)) < kills:
        out = folder / f"run{len(fates)}"
        fates.append(lives.live_dangerously(command, out, random, seconds, min(12, kills - struck), ranks, SLOW_DISK))
        hold(whole, out, fates[-1], ranks)
        trained += len(lives.batches(out)) - 1
    cut = sum(fate.cut_saves for fate in fates)
    print(f"{setting}: {struck} kills in {len(fates)} runs, {trained} after the first batch, {cut} cut a save short")


def hold(whole: Path, out: Path, fate: lives.Fate, ranks: int) -> None:
    """Parameters, optimizer, batches seen and metrics are those of the run that nothing happened to."""
    runs.assert_same_weights(whole, out)
    assert runs.rows(whole) == runs.rows(out)
    for rank in range(ranks):
        expected = dict(lives.batches(whole, rank)[0])
        assert list(expected) == list(range(len(expected)))
        done = 0  # batches that are known to be in the weights
        before = -1
        for life, seen in lives.batches(out, rank).items():
            places = [place for place, _ in seen]
            assert places == list(range(places[0], places[0] + len(places))), "in order, none left out"
            assert done <= places[0] <= before + 1, "from the checkpoint on, which may be some batches old"
            assert all(expected[place] == names for place, names in seen), "each with its own examples"
            before = places[-1]
            done = before + 1 if life in fate.saved else places[0]
        assert before == len(expected) - 1
    assert not list(out.rglob(".*.tmp")), "nothing half-written stays"


@pytest.mark.parametrize(("setting", "kills"), [("accumulating, with workers", 2), ("ddp", 1)])
def test_a_few_kills(tmp_path, setting, kills):
    kill(setting, kills, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_many_kills(tmp_path, setting):
    kill(setting, 12, tmp_path)
