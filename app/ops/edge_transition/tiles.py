"""What the fused edge transition takes, and how large the blocks are in which it works: measured, not tuned at run time."""

from typing import NamedTuple

import torch

from app.ops.backend import Call

WIDEST = 256, 512
"""c_z and hidden width: a tile with all its hidden layer lives in the registers of one multiprocessor."""


def limit(call: Call) -> str | None:
    """Why the fused kernel cannot serve a call, or None."""
    if call.dtype == torch.float32 and precision() == "ieee":
        return "computes float32 in TensorFloat32, which torch.set_float32_matmul_precision has not allowed"
    if any(width % 16 for width in call.widths):
        return f"wants widths that are multiples of 16, not {call.widths}"
    if any(width > widest for width, widest in zip(call.widths, WIDEST, strict=True)):
        return f"takes edges of at most {WIDEST[0]} and hidden layers of at most {WIDEST[1]}, not {call.widths}"
    return None


def precision() -> str:
    """How Triton is to multiply float32: in full, unless torch was told that TensorFloat32 will do."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


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
