"""Attention of edges along the rows of the pair representation.

Widths of a call: a head's width, and how many heads there are.
"""

import torch
from torch import Tensor

from app.devices import NVIDIA, kind
from app.ops.backend import FLOATS, HALF, Backend, Call
from app.ops.packages import CUEQUIVARIANCE, TRIFAST, shortest_in_cuequivariance
from app.ops.select import Operation, wants_gradient

# Milliseconds of an H200, bfloat16, 4 heads of 32:
#                            forward at 128, 256, 512    with the backward pass
#   torch                    0.09  0.43  3.15            0.19  1.04  10.7
#   cuequivariance 0.12.0    0.05  0.17  0.99            0.18  0.80   5.18
#   trifast 0.1.13           0.07  0.22  1.00            0.28  0.92   3.59
# In float32, where cuEquivariance has no backward pass, and the reference takes 5 times the memory of torch:
#   reference                0.20  1.31  9.87            0.42  2.74  20.4
#   torch                    0.14  0.81  6.14            0.36  2.24  22.8
#   cuequivariance 0.12.0    0.09  0.48  3.41
#   trifast 0.1.13           0.14  0.76  5.19            3.02  18    132
TRIFAST_FROM = 320
"""Residues from which on `auto` takes trifast first where gradients are asked for; interpolated."""

_NARROW = 32
_SHORTEST_NARROW = 201
"""cuEquivariance runs plain PyTorch for narrower heads up to 200 residues."""


def describe(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Call:
    widths = q.shape[-1], q.shape[2]
    return Call(kind(q.device), v.dtype, q.shape[1], widths, wants_gradient(q, k, v, bias), batch=len(q))


def limit_of_trifast(call: Call) -> str | None:
    width, heads = call.widths
    if width not in (16, 32, 64, 128):
        return f"takes heads of width 16, 32, 64 or 128, not {width}"
    if call.batch * heads * width * call.length**2 >= 2**31:
        return f"counts in 32 bits, too few for {call.batch * heads} heads of {call.length} residues"
    return None


def limit_of_cuequivariance(call: Call) -> str | None:
    """Of its attention; a call's first width is a head's. Where it would run plain PyTorch, it does not serve."""
    width, narrow = call.widths[0], call.dtype in HALF
    widest, multiple = (128, 8) if narrow else (32, 4)
    if width > widest or width % multiple:
        return f"takes heads of a width up to {widest} that {multiple} divides, not {width}, in this precision"
    if width < _NARROW and call.length < _SHORTEST_NARROW:
        return f"takes {_SHORTEST_NARROW} residues or more with heads narrower than {_NARROW}"
    if call.backward and not narrow and torch.get_float32_matmul_precision() == "highest":
        return "has a backward pass in float32 only with TF32 (environment.matmul_precision=high)"
    return None


def order(call: Call) -> tuple[str, ...]:
    if call.dtype not in HALF:
        return ("torch",) if call.backward else ("cuequivariance", "torch")
    if call.backward and call.length >= TRIFAST_FROM:
        return ("trifast", "cuequivariance", "torch")
    return ("cuequivariance", "trifast", "torch")


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
    order=order,
)

__all__ = ["triangle_attention"]
