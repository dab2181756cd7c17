"""How many designs of a length are made at once."""

from collections import Counter
from collections.abc import Callable, Sequence

from app.sampling.designs import Design

DEFAULT = 400_000
"""B * N^2 of a batch, where nothing tells what fits into memory."""

SMALL = 40_000
"""B * N^2 that fits anywhere: no need to look."""

Sizes = Callable[[int], int]  # residues -> designs
Room = Callable[[Sequence[int], int], Sizes]
"""Of the lengths to be made and a greatest number: how many of a length, up to that number, fit into the memory of this
process's device."""


def by_pairs(residues_squared: int) -> Sizes:
    """As many as B * N^2 <= residues_squared allows."""
    return lambda length: residues_squared // length**2


def sizes(designs: Sequence[Design], most: int, residues_squared: int | str, room: Room | None) -> Sizes:
    """most: designs whatever their length. residues_squared: B * N^2, or "auto": by the room that there is, which
    takes a second to look at, and is not where no batch could be of a size to speak of."""
    lengths = Counter(design.length for design in designs)
    largest = max((min(most, count) * length**2 for length, count in lengths.items() if count > 1), default=0)
    if residues_squared != "auto":
        fit = by_pairs(residues_squared)
    elif room is not None and most > 1 and largest > SMALL:
        fit = room(sorted(lengths), most)
    else:
        fit = by_pairs(DEFAULT)
    return lambda length: max(1, min(most, fit(length)))
