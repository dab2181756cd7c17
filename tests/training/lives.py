"""Runs of train.py whose processes are killed again and again: what its fault harness is made of."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import train
from app.config import entry
from app.training.module import CodesignModule
from tests import lives
from tests.lives import said

ENDED_BY = {signal.SIGKILL: 2, signal.SIGTERM: 1, signal.SIGUSR1: 1}  # and how often, of four

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tests.training.lives", "app.training.run", "app.data.demo_dataset"])


@dataclass
class Fate:
    """What a run met with on its way to its end."""

    kills: list[signal.Signals] = field(default_factory=list)
    cut_saves: int = 0  # lives that left a half-written file behind
    saved: list[int] = field(default_factory=list)  # lives that answered a signal by saving and ending


@dataclass(frozen=True)
class Seconds:
    """How long a run takes that nothing happens to: until its first batch, and from then on."""

    starting: float
    training: float


def live(command: Sequence[str], out: Path, ranks: int, slow_disk: float) -> Seconds:
    """A run that nothing happens to. slow_disk: see below."""
    warm = _server.Process(target=int)
    warm.start()
    warm.join()
    began = time.monotonic()
    processes = _start(command, out, 0, ranks, slow_disk)
    _wait_for_first_batch(processes, out, 0)
    trained = time.monotonic()
    assert _ends(processes) == [0] * ranks, said(out)
    return Seconds(trained - began, time.monotonic() - trained)


def live_dangerously(
    command: Sequence[str], out: Path, random: Random, seconds: Seconds, kills: int, ranks: int, slow_disk: float
) -> Fate:
    """The same command again and again, each time ended at a uniformly random moment, until the run is done; after so
    many kills it is left alone. One moment of four is anywhere in a run's time, the others lie after the first batch.

    A signal strikes all ranks, as when a machine goes down, or one of them; where that died, the launcher kills the
    others.
    slow_disk: seconds that a flush takes, so that more of them are met by a signal.
    """
    fate = Fate()
    for life in range(10 * kills):
        written = _written(out)
        processes = _start(command, out, life, ranks, slow_disk)
        moment = random.uniform(0, seconds.training)
        if random.random() < 0.25:
            moment = random.uniform(0, seconds.starting + seconds.training)
        else:
            _wait_for_first_batch(processes, out, written)
        if len(fate.kills) < kills and (number := lives.strike(processes, random, moment, ENDED_BY)):
            fate.kills.append(number)
        ends = _ends(processes)
        fate.cut_saves += any(out.rglob(".*.tmp"))
        if ends == [0] * ranks:
            return fate
        allowed = (0, 1, *(128 + n for n in ENDED_BY), *(-n for n in ENDED_BY))
        assert all(end in allowed for end in ends), f"{ends}: {said(out)}"
        assert fate.kills, said(out)
        if all(end > 128 for end in ends):
            fate.saved.append(life)
    raise AssertionError(f"not at its end after {10 * kills} lives: {said(out)}")


def batches(out: Path, rank: int = 0) -> dict[int, list[tuple[int, str]]]:
    """By life, what a rank trained on: (batches since the run began, names of the examples)."""
    lives: dict[int, list[tuple[int, str]]] = {}
    for line in _record(out, rank).read_text().splitlines():
        life, place, names = line.split(" ")
        lives.setdefault(int(life), []).append((int(place), names))
    return lives


def _record(out: Path, rank: int) -> Path:
    return out.with_suffix(f".batches-{rank}")


def _start(command: Sequence[str], out: Path, life: int, ranks: int, slow_disk: float) -> list:
    settings = (list(command), out, life, ranks, slow_disk, lives.free_port())
    processes = [_server.Process(target=_life, args=(rank, *settings)) for rank in range(ranks)]
    for process in processes:
        process.start()
    return processes


def _written(out: Path) -> int:
    """Bytes of the first rank's record."""
    record = _record(out, 0)
    return record.stat().st_size if record.exists() else 0


def _wait_for_first_batch(processes: list, out: Path, written: int) -> None:
    lives.wait_while(lambda: _written(out) == written, processes)


def _ends(processes: list) -> list[int]:
    return lives.ends(processes, badly=lambda status: status < 0, end=lambda process: process.kill())


def _life(rank: int, command: list[str], out: Path, life: int, ranks: int, slow_disk: float, port: int) -> None:
    """One rank's process, from its first line to its last."""
    lives.begin(out, rank, ranks, port)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in a process that nobody forked
    if slow_disk:
        flush = os.fsync
        os.fsync = lambda number: (time.sleep(slow_disk), flush(number))
    step = CodesignModule.training_step

    def recorded(module, batch, batch_idx):
        place = module.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        with _record(out, rank).open("a") as file:
            file.write(f"{life} {place} {','.join(batch.names)}\n")
        return step(module, batch, batch_idx)

    CodesignModule.training_step = recorded
    sys.argv = ["train.py", *command, f"out={out}"]
    entry.run(train.main)
