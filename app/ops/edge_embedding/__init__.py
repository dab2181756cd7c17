"""Edges from what is known of two residues. Widths of a call: that of the projected nodes, bins of distances, c_z."""

from torch import Tensor

from app.devices import NVIDIA, compute_dtype, kind
from app.ops.backend import FLOATS, HALF, Backend, Call
from app.ops.packages import TRITON
from app.ops.select import Operation, wants_gradient


def describe(
    node: Tensor,
    relative: Tensor,
    trans: tuple[Tensor, ...],
    num_bins: int,
    chain_idx: Tensor | None,
    diffuse_mask: Tensor | None,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    mask: Tensor,
) -> Call:
    backward = wants_gradient(node, relative, first, second, last, norm)
    widths = node.shape[-1], num_bins, len(last[0])
    return Call(kind(node.device), compute_dtype(node), node.shape[1], widths, backward)


WIDEST = 128
"""c_z whose weights and tiles fit into a multiprocessor in float32 as well."""


def limit_of_triton(call: Call) -> str | None:
    c_z = call.widths[-1]
    return f"takes edges of at most {WIDEST}, not {c_z}" if c_z > WIDEST else None


def order(call: Call) -> tuple[str, ...]:
    """Of an H200, bfloat16, at 128, 256 and 512 residues the fused kernel takes 0.12, 0.18 and 0.38 ms, the reference
    0.20, 0.47 and 1.6, `torch` 0.30, 0.69 and 2.2. With the backward pass the reference takes 0.57, 1.5 and 3.8 and no
    more memory, and `torch`, which makes the hidden layers again, 0.95, 2.0 and 5.1."""
    if call.device != NVIDIA:
        return ("torch",)
    if call.backward:
        return ("reference",)
    return ("triton", "torch") if call.dtype in HALF else ("torch",)


edge_embedding = Operation(
    "edge_embedding",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "gathered"),
        Backend("triton", "fused", devices=(NVIDIA,), dtypes=FLOATS, limit=limit_of_triton, **TRITON),
    ],
    describe=describe,
    order=order,
)

__all__ = ["edge_embedding"]
