"""Invariant point attention. Widths of a call: number of heads, a head's width, c_z, points of queries and values."""

from torch import Tensor

from app.ops.backend import Backend, Call
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
    gradient = wants_gradient(q, k, v, q_points, k_points, v_points, edge, bias_weight, down_weight, point_weight)
    return Call(edge.device.type, edge.dtype, edge.shape[1], widths, gradient, dropout > 0)


invariant_point_attention = Operation(
    "invariant_point_attention",
    backends=[Backend("reference", "reference")],
    describe=describe,
    order=lambda call: ("reference",),
)

__all__ = ["invariant_point_attention"]
