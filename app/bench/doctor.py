"""Every backend of every operation, tried on this machine: whether it runs, whether it is right, how fast it is."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from app.bench.apart import Apart, Failed, poisons, told
from app.bench.timing import medians, synchronize
from app.devices import CPU, NVIDIA
from app.errors import UserError
from app.ops import select
from app.ops.backend import Backend
from app.ops.check import BOUNDS, PROBE_LENGTH, Errors, cast, compare
from app.ops.select import Operation
from app.ops.settings import KernelSettings

LENGTHS = (64, 128, 256, 512)
OK, WRONG, FAILED, UNAVAILABLE, NOT_HERE = "ok", "wrong", "failed", "unavailable", "not here"

_LONG = 2.0
"""Seconds on the CPU above which a call is not made: by the cube of the length, from the one before."""


@dataclass(frozen=True)
class Row:
    """A backend of an operation on a device."""

    op: str
    backend: str
    package: str | None  # what it needs, if anything
    version: str | None
    status: str  # ok; wrong: beyond app.ops.check.BOUNDS; failed: raised or crashed; unavailable: its package; not here
    reason: str = ""
    max_error: float | None = None  # against float64, in the first dtype that it has, by the measure of app.ops.check
    max_grad_error: float | None = None
    seconds: dict[int, float | None] = field(default_factory=dict)  # of the forward pass by length; None: not measured
    chosen_by_auto: dict[str, list[int]] = field(default_factory=dict)  # dtype -> lengths of these, in inference


@dataclass(frozen=True)
class Trial:
    """What the other process found."""

    status: str
    reason: str = ""
    errors: Errors | None = None
    seconds: dict[int, float | None] = field(default_factory=dict)


def examine(device: str, lengths: Sequence[int] = LENGTHS) -> Iterator[Row]:
    """Rows by operation. Whatever runs, runs in another process, one for each backend: some crash."""
    apart: dict[str, Apart] = {}
    try:
        for operation in select.operations().values():
            chosen = _chosen(apart.setdefault("auto", Apart()), operation, device, lengths)
            for backend in operation.backends.values():
                trial = _absent(backend, device) or _tried(
                    apart.setdefault(backend.name, Apart()), operation, backend, device, lengths
                )
                yield _row(operation, backend, trial, chosen)
    finally:
        for one in apart.values():
            one.close()


def _absent(backend: Backend, device: str) -> Trial | None:
    if backend.devices is not None and device not in backend.devices:
        needs = "an NVIDIA GPU" if backend.devices == (NVIDIA,) else " or ".join(backend.devices)
        return Trial(NOT_HERE, f"needs {needs}")
    if reason := backend.absent():
        return Trial(UNAVAILABLE, reason)
    return None


def _tried(apart: Apart, operation: Operation, backend: Backend, device: str, lengths: Sequence[int]) -> Trial:
    try:
        return apart(attempt, operation.name, backend.name, device, lengths)
    except (Failed, UserError) as error:
        return Trial(FAILED, str(error))


def _chosen(apart: Apart, operation: Operation, device: str, lengths: Sequence[int]) -> dict[str, dict[str, list[int]]]:
    try:
        return apart(chosen, operation.name, device, lengths)
    except Failed:  # a backend that `auto` tries crashes, as its own row tells
        return {}


def _row(operation: Operation, backend: Backend, trial: Trial, chosen: dict[str, dict[str, list[int]]]) -> Row:
    return Row(
        op=operation.name,
        backend=backend.name,
        package=", ".join(backend.packages) or None,
        version=backend.version(),
        status=trial.status,
        reason=trial.reason,
        max_error=trial.errors and trial.errors.values,
        max_grad_error=trial.errors and trial.errors.gradients,
        seconds=trial.seconds,
        chosen_by_auto=chosen.get(backend.name, {}),
    )


def attempt(operation: str, name: str, device: str, lengths: Sequence[int]) -> Trial:
    """Errors of values and gradients in each dtype that is used on the device, then times of the forward pass."""
    op = select.operations()[operation]
    backend = op.backends[name]
    example = op.example(max(PROBE_LENGTH, backend.shortest), seed=1)
    served, refused, first = [], "", None
    for dtype in dtypes_of(device):
        call = dataclasses.replace(op.describe(**example), device=device, dtype=dtype, backward=backend.backward)
        if reason := backend.refuses(call):
            refused = refused or reason
            continue
        try:
            errors = compare(op, name, example, device, dtype, backend.backward)
        except Exception as error:
            if poisons(error):
                raise
            return Trial(FAILED, f"{_short(dtype)}: {told(error)}", first)
        first = first or errors
        if not errors.within(BOUNDS[dtype]):
            return Trial(WRONG, f"{_short(dtype)}: {_in_words(errors)}, allowed is {BOUNDS[dtype]:.0e}", errors)
        served.append(dtype)
    if not served:
        return Trial(NOT_HERE, refused)
    seconds, reason = _times(op, name, device, served[0], lengths)
    return Trial(OK, reason, first, seconds)


def chosen(operation: str, device: str, lengths: Sequence[int]) -> dict[str, dict[str, list[int]]]:
    """By backend, then by dtype: the lengths at which `auto` would take it, in inference."""
    op = select.operations()[operation]
    like = op.describe(**op.example(PROBE_LENGTH))
    found: dict[str, dict[str, list[int]]] = {}
    with select.using(KernelSettings()):
        for dtype in dtypes_of(device):
            for length in lengths:
                call = dataclasses.replace(like, device=device, dtype=dtype, length=length, backward=False)
                found.setdefault(op.choose(call).backend, {}).setdefault(_short(dtype), []).append(length)
    synchronize(torch.device(device))  # an error that a trial left behind is to be this call's, not the next one's
    return found


def dtypes_of(device: str) -> tuple[torch.dtype, ...]:
    return (torch.float32, torch.bfloat16) if device == NVIDIA else (torch.float32,)


def _times(
    op: Operation, name: str, device: str, dtype: torch.dtype, lengths: Sequence[int]
) -> tuple[dict[int, float | None], str]:
    """Seconds by length, and in words which were left out and why."""
    seconds: dict[int, float | None] = {}
    left_out: list[str] = []
    previous: tuple[int, float] | None = None
    for length in lengths:
        seconds[length] = None
        expected = previous[1] * (length / previous[0]) ** 3 if previous else 0.0
        if device == CPU and expected > _LONG:
            left_out.append(f"{length} not timed: it may take {expected:.0f} s")
            continue
        given = cast(op.example(length), torch.device(device), dtype)
        if reason := op.backends[name].refuses(op.describe(**given)):
            left_out.append(f"{length}: {reason}")
            continue
        call = partial(op.function(name), **given)
        try:
            with torch.no_grad():
                call()
                seconds[length] = medians({name: call}, torch.device(device), repeats=3)[name]
        except Exception as error:
            if poisons(error):
                raise
            left_out.append(f"{length} failed: {told(error)}")
            continue
        previous = length, seconds[length]
    return seconds, "; ".join(left_out)


def _in_words(errors: Errors) -> str:
    of_gradients = "" if errors.gradients is None else f", gradients by {errors.gradients:.1e} ({errors.worst})"
    return f"values off by {errors.values:.1e}{of_gradients}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
