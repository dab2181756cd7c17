"""Shapes of batches for which memory did not suffice, so that the next ones are cut before they fail, too."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class Ledger:
    """(examples, residues) of what failed. A batch that is no smaller in both would fail as well."""

    def __init__(self):
        self.shapes: set[tuple[int, int]] = set()

    def note(self, shapes: Iterable[tuple[int, int]]) -> None:
        """Add shapes; of those that imply each other the smaller stays."""
        known = self.shapes | {(int(size), int(length)) for size, length in shapes}
        self.shapes = {one for one in known if not any(_implies(other, one) for other in known - {one})}

    def refuses(self, size: int, length: int) -> bool:
        return any(_implies(failed, (size, length)) for failed in self.shapes)


def _implies(failed: tuple[int, int], shape: tuple[int, int]) -> bool:
    return failed[0] <= shape[0] and failed[1] <= shape[1]


def in_halves(
    attempt: Callable[[int, int], T | None],
    size: int,
    length: int,
    ledger: Ledger,
    anyones: Callable[[bool], bool] = bool,
    first: int = 0,
) -> list[T] | None:
    """What `attempt(first, last)` makes of the examples of a batch: of all at once where memory suffices, else of
    halves, of halves of these, and so on; None where it does not suffice for a single one.

    attempt: gives None where memory did not suffice, which it tells the ledger. ledger: what it refuses is halved
    without an attempt, save single examples; so later batches of a shape are cut as the first one was in the end.
    anyones: whether something is so on any rank, where several go through this together: all of them halve then, and
    one that has a single example left attempts it, and then none.
    """
    if not anyones(size > 1 and ledger.refuses(size, length)):
        if (made := attempt(first, first + size)) is not None:
            return [made]
        if not anyones(size > 1):
            return None
    parts: list[T] = []
    middle = first + size - size // 2
    for begin, end in ((first, middle), (middle, first + size)):
        if (made := in_halves(attempt, end - begin, length, ledger, anyones, begin)) is None:
            return None
        parts += made
    return parts
