"""Seconds of a call: medians over repeats by turns, so that whatever slows the machine down slows all alike."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

from app.devices import MPS, NVIDIA

REPEATS = 5
_ROUND = 0.1  # seconds that short calls are repeated for in each of the rounds
_MOST = 50  # calls a round
_LONG, _FEWEST = 10.0, 3  # where all repeats of all calls would take more seconds than that, so many of them do
_CACHE = 2**28  # bytes, several times a GPU's L2 cache


Call = Callable[[], object]


def medians(calls: Mapping[str, Call], device: torch.device, repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each call, all of them in turn in each of `repeats` rounds; long ones get fewer rounds.

    Each call has been made before: nothing is loaded, compiled or tuned any more. On an NVIDIA GPU the time is that
    between events around a call, with the cache flushed in front of it; if the host is slower to launch than the GPU to
    compute, it is the host's time.
    """
    taken = {name: _seconds(call, device, 1) for name, call in calls.items()}
    about = {name: first for name, (first,) in taken.items()}
    if repeats * sum(about.values()) > _LONG:
        repeats = min(repeats, _FEWEST)
    for _ in range(repeats - 1):
        for name, call in calls.items():
            taken[name] += _seconds(call, device, max(1, min(_MOST, int(_ROUND / max(about[name], 1e-9)))))
    return {name: median(seconds) for name, seconds in taken.items()}


def _seconds(call: Call, device: torch.device, count: int) -> list[float]:
    return _by_events(call, device, count) if device.type == NVIDIA else _by_clock(call, device, count)


def _by_clock(call: Call, device: torch.device, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return taken


def _by_events(call: Call, device: torch.device, count: int) -> list[float]:
    flushed = torch.empty(_CACHE, dtype=torch.int8, device=device)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for start, end in events:
        flushed.zero_()
        start.record()
        call()
        end.record()
    synchronize(device)
    return [start.elapsed_time(end) / 1000 for start, end in events]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == NVIDIA:
        torch.cuda.synchronize(device)
    elif device.type == MPS:
        torch.mps.synchronize()
