"""Lives of an entry point's processes, which end when a signal strikes: what both fault harnesses are made of.

A server process imports everything once and each life is forked from it (`multiprocessing`'s forkserver), so that it
costs little more than its work does. The ranks of one are told of each other as torchrun tells them.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import torch
from lightning.pytorch.utilities import rank_zero_only

LIMIT = 120  # seconds; a life that has not ended by then hangs


def said(out: Path) -> str:
    """What all lives of the run in this folder wrote to their terminals."""
    return _log(out).read_text()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def begin(out: Path, rank: int, ranks: int, port: int) -> None:
    """To be called first in a rank's process."""
    with _log(out).open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    if ranks > 1:
        here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
        there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "lives"}
        os.environ.update({name: str(value) for name, value in (here | there).items()})
        rank_zero_only.rank = rank  # which Lightning reads from there when it is imported


def wait_while(same: Callable[[], bool], processes: list) -> None:
    """Until something has changed, or all have ended."""
    while same() and any(process.is_alive() for process in processes):
        time.sleep(0.001)


def strike(
    processes: list, random: Random, seconds: float, ended_by: Mapping[signal.Signals, int]
) -> signal.Signals | None:
    """Send all ranks, or one of them, a signal after so many seconds; which it was, or None where the run was faster.

    ended_by: the signals, and how often each is to be drawn.
    """
    moment = time.monotonic() + seconds
    wait_while(lambda: time.monotonic() < moment, processes)
    (number,) = random.choices(list(ended_by), list(ended_by.values()))
    struck = False
    for process in processes if random.random() < 0.5 else [random.choice(processes)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
            struck = True
    return number if struck else None


def ends(processes: list, badly: Callable[[int], bool], end: Callable[[object], None]) -> list[int]:
    """Exit statuses, negative for a signal. As a launcher does, `end` the ranks that are left over when one ended
    `badly`."""
    limit, told = time.monotonic() + LIMIT, False
    while any(process.is_alive() for process in processes):
        if not told and any(process.exitcode is not None and badly(process.exitcode) for process in processes):
            told = True
            for process in processes:
                end(process)
        if time.monotonic() > limit:
            for process in processes:
                process.kill()
            raise AssertionError("it hangs")
        time.sleep(0.002)
    return [process.exitcode for process in processes]


def _log(out: Path) -> Path:
    return out.with_suffix(".log")
