"""Softmax attention over one sequence: the transformer in IPA blocks.

Widths of a call: a head's width, and how many heads there are.
"""

from torch import Tensor

from app.devices import kind
from app.ops.backend import Backend, Call
from app.ops.select import Operation, wants_gradient


def describe(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, dropout: float = 0.0) -> Call:
    widths = q.shape[-1], q.shape[1]
    return Call(kind(q.device), v.dtype, q.shape[2], widths, wants_gradient(q, k, v), dropout > 0)


# The reference takes a fifth less of an H200's time at 256 residues and more; but it writes N^2 points a head, and in
# bfloat16 rounds four times as coarsely.
self_attention = Operation(
    "self_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "fused"),
    ],
    describe=describe,
    order=lambda call: ("torch",),
)

__all__ = ["self_attention"]
