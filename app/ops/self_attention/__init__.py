"""Softmax attention over one sequence: the transformer in IPA blocks.

Widths of a call: a head's width, and how many heads there are.
"""

from torch import Tensor

from app.devices import NVIDIA, kind
from app.ops.backend import FLOATS, Backend, Call
from app.ops.packages import TRITON
from app.ops.select import Operation, wants_gradient
from app.ops.self_attention.tiles import limit


def describe(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, dropout: float = 0.0) -> Call:
    widths = q.shape[-1], q.shape[1]
    return Call(kind(q.device), v.dtype, q.shape[2], widths, wants_gradient(q, k, v), dropout > 0)


def order(call: Call) -> tuple[str, ...]:
    """Of an H100 at 128, 256 and 512 residues, microseconds: triton 2.8, 3.9 and 6.3 in bfloat16, 5.6, 9.2 and 17 in
    float32; torch 24, 31 and 45, and 31, 47 and 77.

    With gradients the reference takes a fifth less of an H200's time than `torch` at 256 residues and more; but it
    writes N^2 points a head, and in bfloat16 rounds four times as coarsely.
    """
    return ("torch",) if call.backward or call.dropout else ("triton", "torch")


self_attention = Operation(
    "self_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "fused"),
        Backend(
            "triton", "streamed", devices=(NVIDIA,), dtypes=FLOATS, backward=False, dropout=False, limit=limit, **TRITON
        ),
    ],
    describe=describe,
    order=order,
)

__all__ = ["self_attention"]
