"""Measuring a case at a point: what runs in the processes of its own."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from app.bench import memory
from app.bench.apart import told
from app.bench.case import REFERENCE, Job, Outputs, Point, kernels
from app.bench.cases import case_of
from app.bench.timing import medians
from app.devices import NVIDIA
from app.errors import UserError
from app.ops import select

_SMALL = 32
"""Residues of the call that loads, on the CPU, what is loaded at first use."""


@dataclass(frozen=True)
class Timed:
    """One backend at one point. What could not be measured is None, and `fault` says why."""

    backend: str
    batch: int
    seconds: float | None = None
    max_error: float | None = None
    chose: str = ""  # the backends that its operations had
    fault: str | None = None
    refused: bool = False  # it does not claim to serve this


def times(point: Point, backends: Sequence[str], repeats: int) -> list[Timed]:
    """Speed and errors of backends side by side, and by turns."""
    job = case_of(point.case).job(point)
    try:
        with _exactly():
            judged = _by(REFERENCE, job.outputs, REFERENCE, torch.float32)
    except Exception as error:
        judged, lacking = None, told(error)
        found = [Timed(REFERENCE, job.batch(REFERENCE), fault=lacking)]
        backends = [name for name in backends if name != REFERENCE or point.torch_dtype != torch.float32]
    else:
        found = []
    _release(point)
    found += [_compared(job, point, name, judged) for name in backends]
    del judged
    _release(point)
    calls = {one.backend: partial(_by, one.backend, job.run, one.backend) for one in found if one.fault is None}
    seconds = medians(calls, point.torch_device, repeats)
    _release(point)
    return [
        replace(one, seconds=job.seconds(one.backend, seconds[one.backend])) if one.backend in seconds else one
        for one in found
    ]


def peak(point: Point, backend: str) -> int:
    """Bytes that a run needs above what was in use before it, model and inputs included. Changes the process."""
    memory.return_what_is_freed()
    case = case_of(point.case)
    if point.device != NVIDIA:
        _by(backend, case.job(replace(point, length=_SMALL)).run, backend)
    job = case.job(point)
    if point.device == NVIDIA:  # kernels are tuned at the length itself, and that takes memory
        _by(backend, job.run, backend)
    return memory.peak_bytes(lambda: _by(backend, job.run, backend), point.torch_device)


def _compared(job: Job, point: Point, backend: str, judged: Outputs | None) -> Timed:
    """A backend's errors; a run of it, so that all is loaded that it needs."""
    nothing = Timed(backend, job.batch(backend))
    if reason := job.refuses(backend):
        return replace(nothing, fault=reason, refused=True)
    itself = backend == REFERENCE and point.torch_dtype == torch.float32
    try:
        with select.using(kernels(backend)):
            found = judged if itself else job.outputs(backend, point.torch_dtype)
            job.run(backend)
            chose = ", ".join(sorted({f"{one.operation} {one.backend}" for one in select.choices()}))
        error = None if judged is None else job.error(found, judged)
    except UserError as error:
        return replace(nothing, fault=str(error), refused=True)
    except Exception as error:
        return replace(nothing, fault=told(error))
    return replace(nothing, batch=job.batch(backend), max_error=error, chose=chose)


def _by(backend: str, function: Callable, *arguments: Any) -> Any:
    with select.using(kernels(backend)):
        return function(*arguments)


@contextmanager
def _exactly() -> Iterator[None]:
    """float32 that is float32, whatever the process has made of its products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _release(point: Point) -> None:
    """Give back what is free, for the process that measures memory."""
    gc.collect()
    if point.device == NVIDIA:
        torch.cuda.empty_cache()
