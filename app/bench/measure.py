"""Measuring a case at a point: what runs in the processes of its own."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from app.bench import memory
from app.bench.apart import poisons, told
from app.bench.case import AUTO, REFERENCE, Job, Outputs, Point, kernels
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
    found = {}
    judged, fault = _judged(job)
    _release(point)
    for name in backends:
        found[name] = _compared(job, point, name, judged, fault)
    del judged
    _release(point)
    calls = {name: partial(_by, name, job.run, name) for name, one in found.items() if one.fault is None}
    taken = medians(calls, point.torch_device, repeats, job.queued)
    seconds = {name: job.seconds(name, each) for name, each in taken.items()}
    _release(point)
    return [
        replace(one, batch=job.batch(name), seconds=seconds[name]) if name in seconds else one
        for name, one in found.items()
    ]


def peak(point: Point, backend: str) -> int:
    """Bytes that a run needs above what was in use before it, model and inputs included. Changes the process."""
    memory.return_what_is_freed()
    case = case_of(point.case)
    if point.device != NVIDIA:
        _by(backend, case.job(replace(point, length=_SMALL)).run, backend)
    job = case.job(point)
    if point.device == NVIDIA:  # kernels are tuned at the length itself, and that takes memory
        for _ in range(
            max(1, job.settles)
        ):  # the run that records is measured: it takes the memory of those that replay
            _by(backend, job.run, backend)
    return memory.peak_bytes(lambda: _by(backend, job.run, backend), point.torch_device)


def _judged(job: Job) -> tuple[Outputs | None, str | None]:
    """The reference's outputs in float32, or why there are none."""
    if reason := job.refuses(REFERENCE):
        return None, reason
    try:
        with _exactly():
            return _by(REFERENCE, job.outputs, REFERENCE, torch.float32), None
    except Exception as error:
        if poisons(error):
            raise
        return None, told(error)


def _compared(job: Job, point: Point, backend: str, judged: Outputs | None, fault: str | None) -> Timed:
    """A backend's errors, found by running it, so that afterwards all is loaded that it needs.

    judged: what it is compared with; None where that failed, and `fault` says why.
    """
    nothing = Timed(backend, point.size)
    if reason := job.refuses(backend):
        return replace(nothing, fault=reason, refused=True)
    judge = backend == REFERENCE and point.torch_dtype == torch.float32
    if judge and judged is None:
        return replace(nothing, fault=fault)
    try:
        with select.using(kernels(backend)):
            error = 0.0 if judge else _error(job, job.outputs(backend, point.torch_dtype), judged)
            for _ in range((judge or job.apart) + job.settles):
                job.run(backend)
            choices = select.choices()
    except UserError as refusal:
        return replace(nothing, fault=str(refusal), refused=True)
    except Exception as failure:
        if poisons(failure):
            raise
        return replace(nothing, fault=told(failure))
    if choices and backend not in (AUTO, *(choice.backend for choice in choices)):
        return replace(nothing, fault="none of its operations has it", refused=True)
    chose = ", ".join(sorted({f"{choice.operation} {choice.backend}" for choice in choices}))
    return replace(nothing, max_error=error, chose=chose)


def _error(job: Job, found: Outputs, judged: Outputs | None) -> float | None:
    return None if judged is None else job.error(found, judged)


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
