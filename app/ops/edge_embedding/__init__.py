"""Edges from what is known of two residues. Widths of a call: that of the projected nodes, bins of distances, c_z."""

from torch import Tensor

from app.devices import NVIDIA, compute_dtype, kind
from app.ops.backend import FLOATS, Backend, Call
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


edge_embedding = Operation(
    "edge_embedding",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "gathered"),
        Backend("triton", "fused", devices=(NVIDIA,), dtypes=FLOATS, limit=limit_of_triton, **TRITON),
    ],
    describe=describe,
    order=lambda call: ("torch",),  # triton's has not been measured yet
)

__all__ = ["edge_embedding"]
