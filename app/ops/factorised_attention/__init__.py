"""Invariant point attention with pairs of low rank. Widths of a call: the widened key's and value's."""

import torch
from torch import Tensor

from app.devices import NVIDIA, runs_flash_attention
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
    precise = 1 if v.dtype == q_points.dtype else 3  # columns for each number made of coordinates, see `widened.py`
    keys = q.shape[-1] + bias_left.shape[-1] + precise * (3 * q_points.shape[-2] + 1)
    values = v.shape[-1] + 3 * v_points.shape[-2] + value_left.shape[2] * value_left.shape[3]
    points, factors = (q_points, k_points, v_points), (bias_left, bias_right, value_left, value_right)
    gradient = wants_gradient(q, k, v, points, factors, point_weight, frames.rotmats, frames.trans)
    return Call(q.device.type, v.dtype, q.shape[1], (keys, values), gradient)


def limit_of_flash_attn(call: Call) -> str | None:
    if max(call.widths) > WIDEST_FLASH_ATTN:
        return f"takes widened keys and values up to {WIDEST_FLASH_ATTN}, not {max(call.widths)}"
    if call.device == NVIDIA and not runs_flash_attention(torch.device(call.device), call.dtype):
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
