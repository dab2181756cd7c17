"""Invariant point attention. Widths of a call: number of heads, a head's width, c_z, points of queries and values."""

import torch
from torch import Tensor

from app.devices import NVIDIA, kind
from app.ops.backend import FLOATS, Backend, Call
from app.ops.packages import TRITON
from app.ops.select import Operation, wants_gradient
from app.types import Frames


def describe(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_points: Tensor,
    k_points: Tensor,
    v_points: Tensor,
    edge: Tensor,
    bias_weight: Tensor,
    bias_bias: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    point_weight: Tensor,
    frames: Frames,
    node_mask: Tensor,
    dropout: float = 0.0,
) -> Call:
    widths = q.shape[2], q.shape[3], edge.shape[-1], q_points.shape[-2], v_points.shape[-2]
    layers = bias_weight, bias_bias, down_weight, down_bias, point_weight
    points = q_points, k_points, v_points
    gradient = wants_gradient(q, k, v, points, edge, layers, frames.rotmats, frames.trans)
    return Call(kind(edge.device), edge.dtype, edge.shape[1], widths, gradient, dropout > 0)


def limit(call: Call) -> str | None:
    """What the fused kernels keep on chip is limited."""
    heads, width, c_z, qk_points, v_points = call.widths
    most = 8 if call.dtype == torch.float32 else 16
    if heads > most:
        return f"takes up to {most} heads in {str(call.dtype).removeprefix('torch.')}, not {heads}"
    if c_z % 16 or c_z > 256:
        return f"takes a multiple of 16 up to 256 as c_z, not {c_z}"
    if (widest := width + 3 * max(qk_points, v_points)) > 64:
        return f"takes heads up to 64 wide with their points' coordinates, not {widest}"
    return None


FUSED_UP_TO = 192
"""Residues up to which `auto` takes the fused backward pass in float32: between what was measured, see `order`."""


def order(call: Call) -> tuple[str, ...]:
    """In float32 the fused backward pass is slower than torch's products for long chains: with it an H200 takes 0.21,
    0.49 and 1.53 ms at 128, 256 and 512 residues, with theirs 0.37, 0.53 and 0.87."""
    slow = call.dtype == torch.float32 and call.backward and call.length > FUSED_UP_TO
    return ("torch",) if slow else ("triton", "torch")


invariant_point_attention = Operation(
    "invariant_point_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "expanded"),
        Backend("triton", "fused", devices=(NVIDIA,), dtypes=FLOATS, dropout=False, limit=limit, **TRITON),
    ],
    describe=describe,
    order=order,
)

__all__ = ["invariant_point_attention"]
