"""What the kernel takes, and the sides of the tiles in which it works: measured on an H100, not tuned when run."""

from typing import NamedTuple

from app.ops.backend import Call

WIDEST = 128
"""A head's width, so that tiles of queries, keys and values fit on chip."""


def limit(call: Call) -> str | None:
    """Why the kernel cannot serve a call, or None."""
    width = call.widths[0]
    if width % 16 or width > WIDEST:
        return f"takes heads whose width is a multiple of 16 up to {WIDEST}, not {width}"
    return None


class Tile(NamedTuple):
    """`queries` x `keys` at a time, by `warps` warps, `stages` tiles of keys and values under way."""

    queries: int
    keys: int
    warps: int
    stages: int


# By bytes of a number: within a tenth of the best of some twenty tiles, at single chains of 128 to 512 residues and at
# batches of 8 x 384, 32 x 100 and 32 x 300 (within a fifth at the first of these in half precision).
FEW = {2: Tile(16, 128, 4, 2), 4: Tile(16, 64, 4, 2)}
MANY = {2: Tile(64, 64, 4, 2), 4: Tile(64, 64, 4, 2)}

WIDE = 64
"""A head's width above which half as many keys are at hand, so that they fit on smaller GPUs' chips."""

ENOUGH = 2**13
"""Queries of all examples and heads that are enough for large tiles, which read keys and values less often, on all
processors of a GPU."""


def tile_of(queries: int, width: int, number: int) -> Tile:
    """queries: of all examples and heads together. width: of a head. number: bytes of one of their entries."""
    tile = (MANY if queries >= ENOUGH else FEW)[number]
    return tile._replace(keys=tile.keys // 2) if width > WIDE else tile
