"""Attention of edges along the rows of the pair representation.

Widths of a call: a head's width, and how many heads there are in all examples.
"""

import torch
from torch import Tensor

from app.devices import NVIDIA
from app.ops.backend import FLOATS, HALF, Backend, Call
from app.ops.packages import CUEQUIVARIANCE, TRIFAST, shortest_in_cuequivariance
from app.ops.select import Operation, wants_gradient

FUSED_FROM = 192
"""Residues from which on `auto` takes cuEquivariance in half precision. On an H100 in bfloat16, forward and backward,
it takes 1.3 ms at 128 residues and 1.5 at 256, where torch takes 0.7 and 3.4; what lies between is interpolated."""

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
    """trifast is not on it: not measured against the others yet."""
    return ("cuequivariance", "torch") if call.dtype in HALF and call.length >= FUSED_FROM else ("torch",)


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
