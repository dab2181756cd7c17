"""The longest chain for which one forward pass fits into a GPU's memory."""

import time
from dataclasses import dataclass, replace

import torch

from app.bench.apart import told
from app.bench.case import Point, kernels, under
from app.bench.models import Made
from app.bench.proteins import noisy_batch
from app.devices import NVIDIA, is_out_of_memory
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


def refuse_elsewhere(device: str) -> None:
    """Raises UserError on devices where running out of memory cannot be survived."""
    if device != NVIDIA:
        raise UserError(
            f"--only {NAME} needs an NVIDIA GPU: elsewhere running out of memory ends the process: leave it out"
        )


def longest(point: Point, backend: str) -> Longest:
    """By doubling, then by halving the interval. A pass that fails otherwise than by memory ends the search."""
    refuse_elsewhere(point.device)
    made = Made.at(replace(point, length=1))

    def attempt(length: int) -> tuple[float, int] | None:
        return _pass(made, point, backend, length)

    fits, best, fails = FIRST, attempt(FIRST), None
    if best is None:
        raise RuntimeError(f"not even {FIRST} residues fit into memory")
    while (fails is None and fits < LAST and best[0] < LONG) or (fails is not None and fails - fits > STEP):
        length = 2 * fits if fails is None else (fits + fails) // 2
        try:
            found = attempt(length)
        except Exception as error:  # after which a GPU may do no more
            return Longest(fits, *best, f"{length} residues failed: {told(error)}")
        fits, best, fails = (fits, best, length) if found is None else (length, found, fails)
    stopped = None if fails else f"longer ones than {fits} residues were not tried"
    return Longest(fits, *best, stopped)


@torch.no_grad()
def _pass(made: Made, point: Point, backend: str, length: int) -> tuple[float, int] | None:
    """Seconds and bytes of a forward pass, None where memory runs out."""
    torch.cuda.empty_cache()
    try:
        batch = noisy_batch(length, point.size, made.recipe.flow).to(point.torch_device)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with select.using(kernels(backend)), under(point.torch_device, point.torch_dtype):
            made.model(batch)
        torch.cuda.synchronize()
        return time.perf_counter() - start, torch.cuda.max_memory_allocated() - before
    except Exception as error:
        if is_out_of_memory(error):
            return None
        raise
