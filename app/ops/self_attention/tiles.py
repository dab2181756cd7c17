"""What the kernel takes, and the sides of the tiles in which it works: set here, not tuned when run."""

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


# By bytes of a number.
FEW = {2: Tile(16, 64, 4, 2), 4: Tile(16, 32, 4, 2)}
MANY = {2: Tile(64, 64, 4, 2), 4: Tile(32, 32, 4, 2)}

ENOUGH = 2**13
"""Queries of all examples and heads that are enough for large tiles, which read keys and values less often, on all
processors of a GPU."""


def tile_of(queries: int, number: int) -> Tile:
    """queries: how many all examples and heads have together. number: bytes of one of their entries."""
    return (MANY if queries >= ENOUGH else FEW)[number]
