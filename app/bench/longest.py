"""The longest chain for which one forward pass fits into a GPU's memory."""

import time
from dataclasses import dataclass, replace

import torch

from app.bench.case import Point, kernels
from app.bench.models import forward_job
from app.devices import NVIDIA
from app.errors import UserError
from app.ops import select

NAME = "longest"

FIRST, LAST, STEP = 256, 65_536, 64
"""Residues: where the search begins, where it ends even if memory is left, and how exact it is."""

LONG = 60.0
"""Seconds of a pass after which no longer chain is tried."""


@dataclass(frozen=True)
class Longest:
    length: int
    seconds: float
    peak: int  # bytes above model and inputs
    stopped: str | None  # why longer ones were not tried; None: they do not fit


def longest(point: Point, backend: str) -> Longest:
    """By doubling, then by halving the interval. Raises UserError where the device's memory cannot be asked for."""
    if point.device != NVIDIA:
        raise UserError("--only longest needs an NVIDIA GPU: elsewhere running out of memory ends the process")
    fits, best = FIRST, _pass(point, backend, FIRST)
    if best is None:
        raise UserError(f"not even {FIRST} residues fit")
    fails = None
    while fails is None and fits < LAST and best[0] < LONG:
        longer = _pass(point, backend, 2 * fits)
        fits, best, fails = (fits, best, 2 * fits) if longer is None else (2 * fits, longer, None)
    while fails is not None and fails - fits > STEP:
        middle = (fits + fails) // 2
        found = _pass(point, backend, middle)
        fits, best, fails = (fits, best, middle) if found is None else (middle, found, fails)
    stopped = None if fails else f"stopped at {fits} residues: longer ones were not tried"
    return Longest(fits, *best, stopped)


def _pass(point: Point, backend: str, length: int) -> tuple[float, int] | None:
    """Seconds and bytes of a forward pass, None where memory runs out."""
    torch.cuda.empty_cache()
    try:
        job = forward_job(replace(point, length=length))
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with select.using(kernels(backend)):
            job.run(backend)
        torch.cuda.synchronize()
        return time.perf_counter() - start, torch.cuda.max_memory_allocated() - before
    except torch.OutOfMemoryError:
        return None
