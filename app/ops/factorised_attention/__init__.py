"""Invariant point attention with pairs of low rank. Widths of a call: the widened key's and value's."""

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
    bias_left: Tensor,
    bias_right: Tensor,
    value_left: Tensor,
    value_right: Tensor,
    point_weight: Tensor,
    frames: Frames,
    node_mask: Tensor,
) -> Call:
    keys = q.shape[-1] + 3 * q_points.shape[-2] + bias_left.shape[-1] + 1
    values = v.shape[-1] + 3 * v_points.shape[-2] + value_left.shape[2] * value_left.shape[3]
    gradient = wants_gradient(q, k, v, q_points, k_points, v_points, bias_left, value_left, point_weight)
    return Call(q.device.type, q.dtype, q.shape[1], (keys, values), gradient)


factorised_attention = Operation(
    "factorised_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "widened"),
    ],
    describe=describe,
    order=lambda call: ("torch",),
)

__all__ = ["factorised_attention"]
