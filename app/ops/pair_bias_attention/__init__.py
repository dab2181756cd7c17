"""Attention over the nodes with a bias from the edges.

Widths of a call: a head's width, and how many heads there are.
"""

from torch import Tensor

from app.devices import NVIDIA, kind
from app.ops.backend import FLOATS, Backend, Call
from app.ops.packages import CUEQUIVARIANCE, shortest_in_cuequivariance
from app.ops.select import Operation, wants_gradient
from app.ops.triangle_attention import limit_of_cuequivariance


def describe(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor) -> Call:
    return Call(kind(q.device), v.dtype, q.shape[2], (q.shape[-1], q.shape[1]), wants_gradient(q, k, v, bias))


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
    order=lambda call: ("torch",),  # on an H100 twice as fast as cuequivariance, up to 512 residues
)

__all__ = ["pair_bias_attention"]
