"""Attention over the nodes with a bias from the edges. Widths of a call: a head's width."""

from torch import Tensor

from app.ops.backend import Backend, Call
from app.ops.select import Operation, wants_gradient


def describe(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor) -> Call:
    return Call(q.device.type, v.dtype, q.shape[2], (q.shape[-1],), wants_gradient(q, k, v, bias))


pair_bias_attention = Operation(
    "pair_bias_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "fused"),
    ],
    describe=describe,
    order=lambda call: ("torch",),
)

__all__ = ["pair_bias_attention"]
