"""Every backend of every operation, tried on this machine: whether it runs, whether it is right, how fast it is."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from app.bench import trials
from app.bench.apart import Apart, Failed
from app.bench.trials import NOT_HERE, OK, STATUSES, UNAVAILABLE, Trial
from app.devices import CPU, NVIDIA
from app.errors import UserError
from app.ops import select
from app.ops.backend import Backend
from app.ops.select import Operation

LENGTHS = (64, 128, 256, 512)
DTYPES = {CPU: ("float32", "bfloat16"), NVIDIA: ("float32", "bfloat16", "float16")}
"""In which backends are tried, by device type; elsewhere in the first."""

_LONG = 2.0
"""Seconds on the CPU above which a call is not made: by the cube of the length, from the last that was timed."""

Seconds = dict[int, float | None]
"""Of the forward pass, by length; None: not measured."""


@dataclass(frozen=True)
class Checked:
    """A backend in one dtype."""

    status: str
    reason: str = ""
    max_error: float | None = None
    max_grad_error: float | None = None
    seconds: Seconds = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A backend of an operation on a device. Errors and seconds are those in the first dtype that it has."""

    op: str
    backend: str
    package: str | None  # what it needs, if anything
    version: str | None
    status: str  # ok; wrong: beyond its bound in `app.ops.check`; failed: raised or crashed; unavailable; not here
    reason: str = ""
    max_error: float | None = None  # against float64, by the measure of `app.ops.check`
    max_grad_error: float | None = None
    seconds: Seconds = field(default_factory=dict)
    chosen_by_auto: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # see `Choices`
    dtypes: dict[str, Checked] = field(default_factory=dict)  # the same for each; none for what is not tried


Choices = dict[str, dict[str, dict[str, list[int]]]]
"""By backend, "inference" or "training", and dtype: the lengths at which `auto` would take it."""


def examine(device: str, lengths: Sequence[int] = LENGTHS) -> Iterator[Row]:
    """Rows by operation. Whatever runs, runs in another process, one for each backend: some crash.

    Those that are right are timed side by side in one more, in which they take turns.
    """
    apart: dict[str, Apart] = defaultdict(Apart)
    dtypes = DTYPES.get(device, DTYPES[CPU][:1])
    try:
        for operation in select.operations().values():
            chosen = _chosen(apart["auto"], operation, device, dtypes, lengths)
            checked: dict[str, dict[str, Checked]] = {name: {} for name in operation.backends}
            there = [backend for backend in operation.backends.values() if not _absent(backend, device)]
            for dtype in dtypes:
                tried = {
                    backend.name: _tried(apart[backend.name], operation, backend, device, dtype) for backend in there
                }
                right = [name for name, trial in tried.items() if trial.status == OK]
                timed = _timed(apart["times"], operation, right, device, dtype, lengths)
                for name, trial in tried.items():
                    checked[name][dtype] = _checked(trial, *timed.get(name, ({}, "")))
            for name, backend in operation.backends.items():
                yield _row(operation, backend, device, checked[name], chosen.get(name, {}))
    finally:
        for one in apart.values():
            one.close()


def _absent(backend: Backend, device: str) -> tuple[str, str] | None:
    """The status of what there is no need to try, and why."""
    if not backend.is_for(device):
        needs = "an NVIDIA GPU" if backend.devices == (NVIDIA,) else " or ".join(backend.devices)
        return NOT_HERE, f"needs {needs}"
    if reason := backend.absent():
        return UNAVAILABLE, reason
    return None


def _tried(apart: Apart, operation: Operation, backend: Backend, device: str, dtype: str) -> Trial:
    try:
        return apart(trials.attempt, operation.name, backend.name, device, dtype)
    except (Failed, UserError) as error:
        return Trial(trials.FAILED, str(error))


def _chosen(apart: Apart, operation: Operation, device: str, dtypes: Sequence[str], lengths: Sequence[int]) -> Choices:
    found: Choices = {}
    for use in ("inference", "training"):
        for dtype in dtypes:
            try:
                taken = apart(trials.chosen, operation.name, device, dtype, use == "training", lengths)
            except Failed:  # a backend that `auto` tries crashes, as its own row tells
                continue
            for backend, where in taken.items():
                found.setdefault(backend, {}).setdefault(use, {})[dtype] = where
    return found


def _timed(
    apart: Apart, operation: Operation, names: Sequence[str], device: str, dtype: str, lengths: Sequence[int]
) -> dict[str, tuple[Seconds, str]]:
    """By backend: seconds by length, and in words which were left out and why."""
    seconds: dict[str, Seconds] = {name: {} for name in names}
    left_out: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    last: dict[str, tuple[int, float]] = {}
    for length in lengths:
        expected = {name: last[name][1] * (length / last[name][0]) ** 3 if name in last else 0.0 for name in names}
        due = [name for name in names if device != CPU or expected[name] <= _LONG]
        found = _side_by_side(apart, operation, due, device, dtype, length)
        for name in names:
            told = found.get(name, f"not timed: more than {_LONG:.0f} s expected")
            seconds[name][length] = told if isinstance(told, float) else None
            if isinstance(told, float):
                last[name] = length, told
            else:
                left_out[name].setdefault(told, []).append(str(length))
    return {
        name: (seconds[name], "; ".join(f"{', '.join(at)} {told}" for told, at in left_out[name].items()))
        for name in names
    }


def _side_by_side(
    apart: Apart, operation: Operation, names: Sequence[str], device: str, dtype: str, length: int
) -> dict[str, float | str]:
    """Seconds, or why there are none. Where the process is lost, each is timed alone: the others do not suffer."""
    try:
        return apart(trials.seconds, operation.name, names, device, dtype, length) if names else {}
    except (Failed, UserError) as error:
        if len(names) == 1:
            return {names[0]: f"failed: {error}"}
    alone = [_side_by_side(apart, operation, [name], device, dtype, length) for name in names]
    return {name: told for one in alone for name, told in one.items()}


def _checked(trial: Trial, seconds: Seconds, left_out: str) -> Checked:
    errors = trial.errors
    return Checked(
        trial.status,
        "; ".join(filter(None, (trial.reason, left_out))),
        errors and errors.values,
        errors and errors.gradients,
        seconds,
    )


def _row(
    operation: Operation, backend: Backend, device: str, checked: dict[str, Checked], chosen: dict[str, dict]
) -> Row:
    status, reason = _absent(backend, device) or _summary(checked)
    first = next((one for one in checked.values() if one.status != NOT_HERE), Checked(status))
    return Row(
        op=operation.name,
        backend=backend.name,
        package=", ".join(backend.packages) or None,
        version=backend.version(),
        status=status,
        reason=reason,
        max_error=first.max_error,
        max_grad_error=first.max_grad_error,
        seconds=first.seconds,
        chosen_by_auto=chosen,
        dtypes=checked,
    )


def _summary(checked: dict[str, Checked]) -> tuple[str, str]:
    """The worst status in any dtype, those that a backend does not have apart; and all reasons."""
    status = next(status for status in STATUSES if any(one.status == status for one in checked.values()))
    told: dict[str, list[str]] = {}
    for dtype, one in checked.items():
        if one.reason and (one.status != NOT_HERE or status == NOT_HERE):
            told.setdefault(one.reason, []).append(dtype)
    return status, "; ".join(
        reason if len(dtypes) == len(checked) else f"{', '.join(dtypes)}: {reason}" for reason, dtypes in told.items()
    )
