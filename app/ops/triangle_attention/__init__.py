"""Attention of edges along the rows of the pair representation. Widths of a call: a head's width."""

from torch import Tensor

from app.ops.backend import Backend, Call
from app.ops.select import Operation, wants_gradient


def describe(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Call:
    return Call(q.device.type, v.dtype, q.shape[1], (q.shape[-1],), wants_gradient(q, k, v, bias))


triangle_attention = Operation(
    "triangle_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "chunked"),
    ],
    describe=describe,
    order=lambda call: ("torch",),
)

__all__ = ["triangle_attention"]
