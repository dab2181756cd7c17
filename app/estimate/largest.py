"""The largest batch, or length, whose need fits into so much memory."""

from collections.abc import Callable
from math import isqrt, log

MOST = 65_536
"""What is not searched beyond."""

NEAR = 0.97
"""Share of the room that a size has to fill to be near enough to the largest."""

_AIM = (NEAR + 1) / 2
_MOST_TRIES = 12


def largest(need: Callable[[int], float], room: float, fixed: float, known: dict[int, float], power: float) -> int:
    """The largest size with need(size) <= room, or one that fills `NEAR` of it; 0 where none fits, `MOST` at most.

    need: bytes, growing with the size; each call takes seconds, so there are few: where to look next follows from the
    growth so far, or, where that leads astray, is the geometric middle of what is left. fixed: bytes whatever the size.
    known: needs that are known already, at least one. power: how what is not fixed grows at first sight.
    """
    known = dict(known)
    for _ in range(_MOST_TRIES):
        fits = [size for size, bytes in known.items() if bytes <= room]
        fails = [size for size, bytes in known.items() if bytes > room]
        low, high = max(fits, default=0), min(fails, default=MOST + 1)
        if high - low <= 1 or (low and known[low] >= NEAR * room):
            return low
        size = _next(known, room, fixed, power)
        if size <= low or (size >= high and fails):  # what is known tells nothing of the growth between the two
            size = isqrt(max(low, 1) * high)
        size = min(max(size, low + 1), high - 1)
        known[size] = need(size)
    return low


def _next(known: dict[int, float], room: float, fixed: float, power: float) -> int:
    """Where a power law through what is known, nearest to the room, fills it."""
    if room <= fixed:
        return 1
    nearest = sorted(known, key=lambda size: abs(known[size] - room))
    first = nearest[0]
    if len(nearest) > 1:
        power = _power(first, nearest[1], known, fixed) or power
    ratio = (_AIM * room - fixed) / max(known[first] - fixed, 1)
    return int(first * max(ratio, 0) ** (1 / power))


def _power(one: int, other: int, known: dict[int, float], fixed: float) -> float | None:
    """Of the growth between two sizes, or None where they tell none."""
    of_one, of_other = known[one] - fixed, known[other] - fixed
    if min(of_one, of_other) <= 0 or one == other or of_one == of_other:
        return None
    power = log(of_one / of_other) / log(one / other)
    return power if 0.5 <= power <= 4 else None
