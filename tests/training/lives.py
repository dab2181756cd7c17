"""Runs of train.py whose processes are killed again and again: what the fault harness is made of.

A server process imports everything once, each life is forked from it (`multiprocessing`'s forkserver), and the ranks of
one are told of each other as torchrun tells them. So a life costs no more than its training does.
"""

import csv
import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.training import runs

LIMIT = 120  # seconds after which a life that should have ended hangs
SIGNALS = (signal.SIGKILL, signal.SIGTERM)

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["app.training.run", "app.data.demo_dataset", "tests.training.lives"])


@dataclass
class Killed:
    """What happened to a run on its way to its end."""

    lives: int = 0
    kills: int = 0
    while_saving: int = 0  # a half-written checkpoint was left behind
    statuses: list[int] = field(default_factory=list)


def live_to_the_end(command: list[str], out: Path, ranks: int = 1) -> float:
    """A run that is never killed; its seconds."""
    began = time.monotonic()
    processes = _start(command, out, ranks)
    assert _statuses(processes) == [0] * ranks, _said(out)
    return time.monotonic() - began


def live_and_be_killed(command: list[str], out: Path, random: Random, seconds: float, kills: int, ranks: int = 1):
    """The same command again and again, ended at uniformly random moments of `seconds`, until the run is done.

    Once `kills` processes were ended a life is left alone, so that the run comes to its end. SIGKILL strikes all ranks, as
    when a machine goes down, or one of them, upon which the launcher kills the others; SIGTERM reaches one or all.
    """
    fate = Killed()
    while True:
        processes = _start(command, out, ranks)
        fate.lives += 1
        struck = False
        if fate.kills < kills:
            _sleep(random.uniform(0, seconds), processes)
            struck = _strike(processes, random, fate)
        statuses = _statuses(processes)
        fate.statuses += statuses
        if not struck or statuses == [0] * ranks:
            assert statuses == [0] * ranks, _said(out)
            return fate


def _start(command: list[str], out: Path, ranks: int) -> list[multiprocessing.Process]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        _server.Process(target=_life, args=([*command, f"out={out}"], out, rank, ranks, port)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    return processes


def _strike(processes: list, random: Random, fate: Killed) -> bool:
    """Send a signal; whether anybody was there to receive it."""
    alive = [process for process in processes if process.is_alive()]
    if not alive:
        return False
    number, chosen = random.choice(SIGNALS), random.choice([alive, [random.choice(alive)]])
    for process in chosen:
        os.kill(process.pid, number)
    fate.kills += len(chosen)
    if number == signal.SIGKILL:
        for process in chosen:
            process.join()
        for process in processes:
            process.kill()
    return True


def _sleep(seconds: float, processes: list) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(process.is_alive() for process in processes):
        time.sleep(0.002)


def _statuses(processes: list) -> list[int]:
    end = time.monotonic() + LIMIT
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
        process.join()
    assert not hanging, f"{len(hanging)} of {len(processes)} ranks hang"
    return [process.exitcode for process in processes]
