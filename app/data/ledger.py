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
    attempt: Callable[[int, int], T | None], size: int, length: int, ledger: Ledger, first: int = 0
) -> list[T] | None:
    """What `attempt(first, last)` makes of the examples of a batch: of all at once where memory suffices, else of
    halves, of halves of these, and so on; None where it does not suffice for a single one.

    attempt: gives None where memory did not suffice. ledger: what it refuses is halved without an attempt, save single
    examples, and it is told of what fails. So later batches of a shape are cut as the first one was in the end.
    """
    if size == 1 or not ledger.refuses(size, length):
        if (made := attempt(first, first + size)) is not None:
            return [made]
        ledger.note([(size, length)])
        if size == 1:
            return None
    parts: list[T] = []
    for begin, count in ((first, size - size // 2), (first + size - size // 2, size // 2)):
        if (made := in_halves(attempt, count, length, ledger, begin)) is None:
            return None
        parts += made
    return parts
