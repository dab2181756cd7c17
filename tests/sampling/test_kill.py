"""infer.py killed at random moments: nothing is lost, made twice, or half-written."""

import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.factories import saved, tiny_module
from tests.sampling import lives

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks processes that have loaded torch")

COMMAND = ["device=cpu", "lengths=[9,14]", "samples_per_length=15", "steps=6", "max_batch_size=2"]
SETTINGS = {  # ranks, what else is typed
    "one process": (1, []),
    "with trajectories": (1, ["trajectories=true", "formats=pdb"]),
    "two processes": (2, ["devices=2"]),
}


def kill(setting: str, kills: int, folder: Path) -> None:
    """Runs that are killed so often, all in all, each held to one that was not."""
    (ranks, more), random = SETTINGS[setting], Random(0)
    checkpoint = saved(tiny_module(), folder / "last.ckpt")
    command, whole, fates = [f"ckpt={checkpoint}", *COMMAND, *more], folder / "whole", []
    seconds = lives.live([text for text in command if text != "devices=2"], whole, ranks=1)
    expected = lives.hold(whole, whole, settled=True)["designs"]
    assert len(expected) == 30
    while (struck := sum(len(fate.kills) for fate in fates)) < kills:
        out = folder / f"run{len(fates)}"
        fates.append(lives.live_dangerously(command, out, whole, random, seconds, min(6, kills - struck), ranks))
        assert lives.hold(out, whole, settled=True)["designs"] == expected
        made = Counter(lives.journaled(out))
        assert set(made.values()) == {1}, "what was accounted for is not made again"
        assert len(made) >= len(expected) - len(fates[-1].kills)  # a kill may fall between two lines
        assert {file.name for file in out.iterdir()} == {file.name for file in whole.iterdir()}
        assert {file.name for file in out.rglob(".*")} == {".manifest.json"}, "nothing else stays"
    cut, begun = sum(fate.cut for fate in fates), sum(fate.begun for fate in fates)
    print(f"{setting}: {struck} kills in {len(fates)} runs, {begun} after a design, {cut} left something half-written")


@pytest.mark.parametrize("setting", ["one process", pytest.param("two processes", marks=pytest.mark.slow)])
def test_a_few_kills(tmp_path, setting):
    kill(setting, 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_many_kills(tmp_path, setting):
    kill(setting, 8, tmp_path)
