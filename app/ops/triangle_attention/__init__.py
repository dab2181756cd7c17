"""Attention of edges along the rows of the pair representation.

Widths of a call: a head's width, and how many heads there are in all examples.
"""

import torch
from torch import Tensor

from app.devices import NVIDIA
from app.ops.backend import FLOATS, Backend, Call
from app.ops.packages import CUEQUIVARIANCE, TRIFAST, shortest_in_cuequivariance
from app.ops.select import Operation, wants_gradient

FUSED_FROM = 128
"""Residues from which on `auto` takes a package's kernel: below, its launches and copies cost more. Not measured."""

_NARROW = 32
_SHORTEST_NARROW = 201
"""cuEquivariance runs plain PyTorch for narrower heads up to 200 residues."""


def describe(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Call:
    widths = q.shape[-1], q.shape[0] * q.shape[2]
    return Call(q.device.type, v.dtype, q.shape[1], widths, wants_gradient(q, k, v, bias))


def limit_of_trifast(call: Call) -> str | None:
    width, heads = call.widths
    if width not in (16, 32, 64, 128):
        return f"takes heads of width 16, 32, 64 or 128, not {width}"
    if heads * width * call.length**2 >= 2**31:
        return f"counts in 32 bits, too few for {heads} heads of {call.length} residues"
    return None


def limit_of_cuequivariance(call: Call) -> str | None:
    return narrow_heads(call.dtype, call.widths[0], call.length)


def narrow_heads(dtype: torch.dtype, width: int, length: int) -> str | None:
    """Why cuEquivariance's attention would run plain PyTorch for heads of that width, in words, or None."""
    widest, multiple = (32, 4) if dtype == torch.float32 else (128, 8)
    if width > widest or width % multiple:
        return f"takes heads of a width up to {widest} that {multiple} divides, not {width}, in this precision"
    if width < _NARROW and length < _SHORTEST_NARROW:
        return f"takes {_SHORTEST_NARROW} residues or more with heads narrower than {_NARROW}"
    return None


triangle_attention = Operation(
    "triangle_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "chunked"),
        Backend("trifast", "trifast", devices=(NVIDIA,), dtypes=FLOATS, limit=limit_of_trifast, **TRIFAST),
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
    order=lambda call: ("cuequivariance", "trifast", "torch") if call.length >= FUSED_FROM else ("torch",),
)

__all__ = ["triangle_attention"]
