"""Attention over the nodes with a bias from the edges.

Widths of a call: a head's width, and how many heads there are.
"""

from torch import Tensor

from app.devices import NVIDIA, kind
from app.ops.backend import FLOATS, HALF, Backend, Call
from app.ops.packages import CUEQUIVARIANCE, shortest_in_cuequivariance
from app.ops.select import Operation, wants_gradient
from app.ops.triangle_attention import limit_of_cuequivariance


def describe(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor) -> Call:
    return Call(kind(q.device), v.dtype, q.shape[2], (q.shape[-1], q.shape[1]), wants_gradient(q, k, v, bias))


def order(call: Call) -> tuple[str, ...]:
    """Of an H200 at 256 and 512 residues, microseconds, forward and with the backward pass:

    bfloat16: cuEquivariance 32 and 42, 81 and 114; torch 49 and 69, 95 and 146.
    float32: cuEquivariance 43 and 65; the reference 50 and 81, 100 and 179; torch 64 and 98, 156 and 250.
    """
    if call.dtype in HALF:
        return ("cuequivariance", "torch")
    if call.device != NVIDIA:
        return ("torch",)
    return ("reference",) if call.backward else ("cuequivariance", "reference")


pair_bias_attention = Operation(
    "pair_bias_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "fused"),
        Backend(
            "cuequivariance",
            "cuequivariance",
            devices=(NVIDIA,),
            dtypes=FLOATS,
            shortest=shortest_in_cuequivariance("CUEQ_TRIATTN_FALLBACK_THRESHOLD"),
            limit=limit_of_cuequivariance,
            **CUEQUIVARIANCE,
        ),
    ],
    describe=describe,
    order=order,
)

__all__ = ["pair_bias_attention"]
