"""Runs of infer.py whose processes are killed again and again: what its fault harness is made of."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

import infer
from app.config import entry
from app.sampling.journal import Journal
from app.sampling.results import NOT_RUN
from tests import lives
from tests.lives import said

ENDED_BY = {signal.SIGKILL: 3, signal.SIGTERM: 1, signal.SIGINT: 1}  # and how often, of five
SLOW_DISK = 0.01  # seconds: each file lies there whole for so long before it has its name, each line half of it

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tests.sampling.lives", "app.cli.infer", "app.sampling.run", "app.training.checkpoint"])


@dataclass
class Fate:
    """What a run met with on its way to its end."""

    kills: list[signal.Signals] = field(default_factory=list)
    cut: int = 0  # lives that left something half-written behind
    begun: int = 0  # lives that were ended after their first design


def live(command: Sequence[str], out: Path, ranks: int) -> float:
    """A run that nothing happens to; the seconds that it takes from its first design on."""
    processes = _start(command, out, ranks)
    _wait_for_a_design(processes, out, 0)
    began = time.monotonic()
    assert _ends(processes) == [0] * ranks, said(out)
    return time.monotonic() - began


def live_dangerously(
    command: Sequence[str], out: Path, whole: Path, random: Random, seconds: float, kills: int, ranks: int
) -> Fate:
    """The same command again and again, each time ended at a random moment, until the run is done; after so many kills
    it is left alone. Whenever it ends, its folder is held to that of `whole`, which nothing happened to.

    One moment of five is anywhere, the others lie after the first design. A signal strikes all ranks, or one of them;
    where that ends badly, the launcher ends the others.
    """
    fate = Fate()
    for _ in range(10 * kills + 1):
        written = len(journaled(out))
        processes = _start(command, out, ranks)
        if random.random() > 0.2:
            _wait_for_a_design(processes, out, written)
        moment = random.uniform(0, 0.5 * seconds)
        if len(fate.kills) < kills and (number := lives.strike(processes, random, moment, ENDED_BY)):
            fate.kills.append(number)
        ends = _ends(processes)
        if ends == [0] * ranks:
            return fate
        allowed = (0, 1, *(128 + n for n in ENDED_BY), *(-n for n in ENDED_BY))
        assert all(end in allowed for end in ends), f"{ends}: {said(out)}"
        fate.begun += len(journaled(out)) > written
        fate.cut += any(out.rglob(".*.tmp")) or any(not p.read_bytes().endswith(b"\n") for p in out.glob(".journal-*"))
        hold(out, whole, settled=ends[0] > 0)
    raise AssertionError(f"not at its end after {10 * kills} lives: {said(out)}")


def hold(out: Path, whole: Path, settled: bool) -> dict | None:
    """What is there is whole and true. settled: the first process came to its own end, and gave its reasons."""
    for file in (*out.rglob("structures/*"), *out.rglob("trajectories/*")):
        if not file.name.startswith("."):
            assert file.read_bytes() == (whole / file.relative_to(out)).read_bytes(), file
    if not (out / "manifest.json").exists():
        return None
    manifest = json.loads((out / "manifest.json").read_text())
    counted = Counter(design["status"] for design in manifest["designs"])
    assert manifest["requested"] == len(manifest["designs"]) == counted.total()
    assert (manifest["done"], manifest["failed"]) == (counted["done"], counted["failed"])
    assert manifest["requested"] == manifest["done"] + manifest["failed"]
    for design in manifest["designs"]:
        assert not settled or design["error"] != NOT_RUN
        assert bool(design["files"]) == (design["status"] == "done")
        for name, digest in design["files"].items():
            assert sha256((out / name).read_bytes()).hexdigest() == digest
    return manifest


def journaled(out: Path) -> list[str]:
    """Designs that were accounted for as done, in the order of it, over all lives."""
    record = out.with_suffix(".made")
    return record.read_text().split() if record.exists() else []


def _start(command: Sequence[str], out: Path, ranks: int) -> list:
    port = lives.free_port()
    processes = [_server.Process(target=_life, args=(rank, list(command), out, ranks, port)) for rank in range(ranks)]
    for process in processes:
        process.start()
    return processes


def _wait_for_a_design(processes: list, out: Path, written: int) -> None:
    lives.wait_while(lambda: len(journaled(out)) == written, processes)


def _ends(processes: list) -> list[int]:
    return lives.ends(processes, badly=bool, end=lambda process: process.terminate())


def _life(rank: int, command: list[str], out: Path, ranks: int, port: int) -> None:
    """One rank's process, from its first line to its last."""
    lives.begin(out, rank, ranks, port)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _slow_down()
    add = Journal.add

    def recorded(journal, record):
        add(journal, record)
        if record.get("status") == "done":
            with out.with_suffix(".made").open("a") as file:
                file.write(f"{record['id']}\n")

    Journal.add = recorded
    sys.argv = ["infer.py", *command, f"out={out}"]
    entry.run(infer.main)


def _slow_down() -> None:
    replace, write = os.replace, os.write

    def slow_replace(*paths):
        time.sleep(SLOW_DISK)
        replace(*paths)

    def half(number, line):
        if len(line) < 100 or number < 3:
            return write(number, line)
        done = write(number, line[: len(line) // 2])
        time.sleep(SLOW_DISK)
        return done

    os.replace, os.write = slow_replace, half
