"""What doctor does with a backend, each call in a process of its own: is it right, how fast is it, does `auto` take it.

All of it at published widths.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from app.bench.apart import poisons, told
from app.bench.timing import medians, synchronize
from app.ops import select
from app.ops.check import Errors, bound, cast, compare, probe_length
from app.ops.settings import KernelSettings

OK, WRONG, FAILED, UNAVAILABLE, NOT_HERE = "ok", "wrong", "failed", "unavailable", "not here"
STATUSES = (WRONG, FAILED, OK, NOT_HERE)
"""Of what was tried, the worst first."""

REPEATS = 3


@dataclass(frozen=True)
class Trial:
    """What was found in one dtype."""

    status: str
    reason: str = ""
    errors: Errors | None = None


def attempt(operation: str, name: str, device: str, dtype: str) -> Trial:
    """Errors of values and of gradients; of values alone where the backend has no backward pass."""
    op, number = select.operations()[operation], getattr(torch, dtype)
    backend = op.backends[name]
    refusals = []
    for backward in (True, False):
        call = dataclasses.replace(op.published, device=device, dtype=number, backward=backward)
        call = dataclasses.replace(call, length=probe_length(backend, call))
        if (reason := backend.refuses(call)) is None:
            break
        refusals.append(reason)
    else:
        return Trial(NOT_HERE, refusals[0])
    try:
        errors = compare(op, name, op.example(call.length, seed=1), device, number, call.backward)
        synchronize(torch.device(device))
    except Exception as error:
        if poisons(error):
            raise
        return Trial(FAILED, told(error))
    if not errors.within(bound(number)):
        return Trial(WRONG, f"{_in_words(errors)}, allowed is {bound(number):.0e}", errors)
    return Trial(OK, f"forward alone: {refusals[0]}" if refusals else "", errors)


def chosen(operation: str, device: str, dtype: str, backward: bool, lengths: Sequence[int]) -> dict[str, list[int]]:
    """By backend, the lengths at which `auto` would take it."""
    op = select.operations()[operation]
    found: dict[str, list[int]] = {}
    with select.using(KernelSettings()):
        for length in lengths:
            call = dataclasses.replace(
                op.published, device=device, dtype=getattr(torch, dtype), length=length, backward=backward
            )
            found.setdefault(op.choose(call).backend, []).append(length)
    synchronize(torch.device(device))  # an error that a trial left behind is to be this call's, not the next one's
    return found


@torch.no_grad()
def seconds(operation: str, names: Sequence[str], device: str, dtype: str, length: int) -> dict[str, float | str]:
    """By backend: seconds of the forward pass, all of them by turns; or why there are none."""
    op, where = select.operations()[operation], torch.device(device)
    given = cast(op.example(length), where, getattr(torch, dtype))
    described = op.describe(**given)
    calls, found = {}, {}
    for name in names:
        if reason := op.backends[name].refuses(described):
            found[name] = f"not timed: {reason}"
            continue
        call = partial(op.function(name), **given)
        try:
            call()
            synchronize(where)
        except Exception as error:
            if poisons(error):
                raise
            found[name] = f"failed: {told(error)}"
        else:
            calls[name] = call
    return found | (medians(calls, where, REPEATS, queued=True) if calls else {})


def _in_words(errors: Errors) -> str:
    of_gradients = "" if errors.gradients is None else f", gradients by {errors.gradients:.1e} ({errors.worst})"
    return f"values off by {errors.values:.1e}{of_gradients}"
