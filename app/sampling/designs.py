"""The designs of a run: their ids, their seeds, and which of them are made together."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from app.sampling.given import Given
from app.sampling.request import Request


@dataclass(frozen=True)
class Design:
    """One design that was asked for. Its id is unique in the run and safe as a file name."""

    id: str
    length: int  # residues
    seed: int
    given: Given | None = None  # what a folding task starts from


def designs_of(request: Request, given: Sequence[Given]) -> list[Design]:
    """All designs of a run in the order asked for. given: the inputs of a folding task, else none."""
    made: list[Design] = []
    if request.lengths:
        count = dict.fromkeys(request.lengths, 0)
        for length in request.lengths:  # one given twice gets twice as many
            for _ in range(request.samples_per_length or 1):
                made.append(_design(f"len{length}_{count[length]}", length, request.seed))
                count[length] += 1
    for one in given:
        for index in range(request.samples or 1):
            made.append(_design(f"{one.name}_{index}", len(one), request.seed, one))
    return made


def seed_of(seed: int, design_id: str) -> int:
    """A design's seed: that of the run mixed with the id, so that it depends on no other design. Under 2^48."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{design_id}".encode(errors="surrogateescape")).digest()[:6], "big")


def share(designs: Sequence[Design], rank: int, ranks: int) -> list[Design]:
    """One rank's part of the designs: each is in one rank's, and all have as many of a length, give or take one."""
    return sorted(designs, key=lambda design: design.length)[rank::ranks]


def batches(designs: Sequence[Design], at_once: Callable[[int], int]) -> Iterator[list[Design]]:
    """Designs of one length, at most `at_once(length)` of them; short ones first."""
    by_length: dict[int, list[Design]] = {}
    for design in designs:
        by_length.setdefault(design.length, []).append(design)
    for length, members in sorted(by_length.items()):
        size = max(1, at_once(length))
        yield from (members[first : first + size] for first in range(0, len(members), size))


def _design(design_id: str, length: int, seed: int, given: Given | None = None) -> Design:
    return Design(design_id, length, seed_of(seed, design_id), given)
