"""What the fused edge transition takes, and the sides of the blocks in which it works: measured, not tuned when run."""

from typing import NamedTuple

from app.ops.backend import Call

WIDEST = 128
"""c_z, and width of the output: a block over all of it."""

WIDEST_HIDDEN = 512
"""A tile with all its hidden layer lives in the registers of one multiprocessor."""


def limit(call: Call) -> str | None:
    """Why the fused kernel cannot serve a call, or None."""
    c_z, first, second, out = call.widths
    if any(width % 16 for width in call.widths):
        return f"wants widths that are multiples of 16, not {call.widths}"
    if max(c_z, out) > WIDEST or max(first, second) > WIDEST_HIDDEN:
        return f"takes edges of at most {WIDEST} and hidden layers of at most {WIDEST_HIDDEN}, not {call.widths}"
    if first != second:
        return f"takes hidden layers of one width, not of {first} and {second}"
    return None


class Tile(NamedTuple):
    """pairs: rows of a tile. hidden: a block of the first hidden layer, all of which are held. step: a block of the
    second, which go by. stages: how many steps ahead weights are fetched."""

    pairs: int
    hidden: int
    step: int
    warps: int
    stages: int


def forward_tile(hidden: int) -> Tile:
    return Tile(128, 128, 64, 8, 2) if hidden <= 384 else Tile(64, 128, 64, 8, 2)


def backward_tile(hidden: int) -> Tile:
    return forward_tile(hidden)


NARROWEST = 128
"""Sides of blocks over c_z: what is narrower is padded."""

PAIRS_AT_ONCE = 2**16
"""Pairs of a chunk in the backward pass: 230 MB in half precision at Multiflow's widths."""

MOST_CHUNKS = 4
"""Where there are more pairs than so many chunks hold, chunks are larger: a host that launches dozens of small kernels
for each of them would take longer than a GPU that computes them."""


def pairs_at_once(pairs: int) -> int:
    """How many of all pairs are a chunk."""
    return max(PAIRS_AT_ONCE, -(-pairs // MOST_CHUNKS))
