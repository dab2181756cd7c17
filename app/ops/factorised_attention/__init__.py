"""Invariant point attention with pairs of low rank.

Widths of a call: how many heads, a head's width, points of queries and of values, rank, a pair's width.
"""

import torch
from torch import Tensor

from app.devices import NVIDIA, kind, runs_flash_attention
from app.ops import outline
from app.ops.backend import HALF, Backend, Call
from app.ops.packages import FLASH_ATTN
from app.ops.select import Operation, wants_gradient
from app.types import Frames

WIDEST_FLASH_ATTN = 256


def describe(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_points: Tensor,
    k_points: Tensor,
    v_points: Tensor,
    bias_left: Tensor,
    bias_right: Tensor,
    value_left: Tensor,
    value_right: Tensor,
    point_weight: Tensor,
    frames: Frames,
    node_mask: Tensor,
) -> Call:
    widths = *q.shape[2:], q_points.shape[-2], v_points.shape[-2], *value_left.shape[2:]
    points, factors = (q_points, k_points, v_points), (bias_left, bias_right, value_left, value_right)
    gradient = wants_gradient(q, k, v, points, factors, point_weight, frames.rotmats, frames.trans)
    return Call(kind(q.device), v.dtype, q.shape[1], widths, gradient)


def widened_widths(call: Call) -> tuple[int, int]:
    """Widths of keys and values that have a pair's and the points' in them, see `widened.py`."""
    _, width, qk_points, v_points, rank, pair_width = call.widths
    columns = 3 if call.dtype in HALF else 1  # for each number made of coordinates
    return width + rank + columns * (3 * qk_points + 1), width + 3 * v_points + rank * pair_width


def limit_of_flash_attn(call: Call) -> str | None:
    if (widest := max(widened_widths(call))) > WIDEST_FLASH_ATTN:
        return f"takes widened keys and values up to {WIDEST_FLASH_ATTN}, not {widest}"
    there = call.device == NVIDIA and outline.current() is None  # an estimate may be for a GPU that is not
    if there and not runs_flash_attention(torch.device(call.device), call.dtype):
        return "runs on GPUs from Ampere on"
    return None


factorised_attention = Operation(
    "factorised_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "widened"),
        Backend("flash_attn", "flash_attn", devices=(NVIDIA,), dtypes=HALF, limit=limit_of_flash_attn, **FLASH_ATTN),
    ],
    describe=describe,
    order=lambda call: ("torch",),  # the same algorithm as flash_attn; not measured against it
)

__all__ = ["factorised_attention"]
