"""The sides of the tiles in which the fused kernels work: measured, not tuned when run, and smaller for wider edges."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Tiles:
    """How one kernel is cut: `queries` x `keys` pairs at a time, by `warps` warps, `stages` loads under way.

    at_once: programs that a processor runs together.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    at_once: int = 1


# By bytes of a number of the edges; for published widths, by what was fastest on an H100 and an H200.
ATTEND = {2: Tiles(8, 16, 8, 3), 4: Tiles(4, 16, 8, 1)}
ATTEND_MANY = {2: Tiles(16, 16, 8, 2), 4: Tiles(4, 16, 8, 1)}
BY_QUERIES = {2: Tiles(4, 16, 4, 2, at_once=2), 4: Tiles(4, 16, 8, 1)}
BY_KEYS = {2: Tiles(16, 16, 8, 2), 4: Tiles(16, 4, 8, 1)}
MANY = 2048
"""Queries that are enough for large tiles on all processors."""
PUBLISHED = 8 * 128
"""Heads times channels of the edges."""
LEAST = 2
"""Residues that stay on chip at least: with one, Triton 3.6 makes wrong products (of the gradients of queries)."""
RESIDUES = 2
"""Of the kernels around the attention, by 4 warps."""


def of_forward(residues: int) -> dict[int, Tiles]:
    """Those of the forward kernel, by how many residues all examples have together."""
    return ATTEND_MANY if residues >= MANY else ATTEND


def fitted(tiles: Tiles, resident: Literal["queries", "keys"], heads: int, channels: int) -> Tiles:
    """What fits on chip: fewer of the residues that stay there where heads and channels are more than published.

    heads, channels: padded to powers of two, as is the result.
    """
    times = heads * channels // PUBLISHED
    if times <= 1:
        return tiles
    return replace(tiles, warps=8, stages=1, **{resident: max(LEAST, getattr(tiles, resident) // times)})
