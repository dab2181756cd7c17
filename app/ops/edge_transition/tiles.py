"""How large the blocks are in which the fused edge transition works: measured once, not tuned at run time."""

from typing import NamedTuple

import torch


class Tile(NamedTuple):
    """pairs: rows of a tile. hidden: a block of the first hidden layer, all of which are held. step: a block of the
    second, which go by. stages: how many steps ahead weights are fetched."""

    pairs: int
    hidden: int
    step: int
    warps: int
    stages: int


def forward_tile(dtype: torch.dtype, hidden: int) -> Tile:
    if dtype.itemsize == 4:
        return Tile(64, 128, 32, 8, 2)
    return Tile(128, 128, 64, 8, 2) if hidden <= 384 else Tile(64, 128, 64, 8, 2)
