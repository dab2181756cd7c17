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
_FLUSH = _CACHE / 8e12  # seconds that writing them takes on the fastest GPUs
_AHEAD = 2.0  # for so many times a call's time, as first measured, the GPU is busy before it where calls are queued


Call = Callable[[], object]


def medians(
    calls: Mapping[str, Call], device: torch.device, repeats: int = REPEATS, queued: bool = False
) -> dict[str, float]:
    """Median seconds of each call, all of them in turn in each of `repeats` rounds; long ones get fewer rounds.

    Each call has been made before: nothing is loaded, compiled or tuned any more. On an NVIDIA GPU the time is that
    between events around a call, with the cache flushed in front of it. If the host is slower to launch than the GPU to
    compute, it is the host's time; not so if `queued`: then the GPU is kept busy until the host has launched the call.
    """
    taken = {name: _seconds(call, device, 1) for name, call in calls.items()}
    about = {name: first for name, (first,) in taken.items()}
    if repeats * sum(about.values()) > _LONG:
        repeats = min(repeats, _FEWEST)
    for _ in range(repeats - 1):
        for name, call in calls.items():
            count = max(1, min(_MOST, int(_ROUND / max(about[name], 1e-9))))
            taken[name] += _seconds(call, device, count, ahead=_AHEAD * about[name] if queued else 0.0)
    return {name: median(seconds) for name, seconds in taken.items()}


def _seconds(call: Call, device: torch.device, count: int, ahead: float = 0.0) -> list[float]:
    """ahead: seconds for which a GPU is kept busy before each call."""
    return _by_events(call, device, count, ahead) if device.type == NVIDIA else _by_clock(call, device, count)


def _by_clock(call: Call, device: torch.device, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return taken


def _by_events(call: Call, device: torch.device, count: int, ahead: float = 0.0) -> list[float]:
    flushed = torch.empty(_CACHE, dtype=torch.int8, device=device)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for start, end in events:
        for _ in range(1 + int(ahead / _FLUSH)):
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
