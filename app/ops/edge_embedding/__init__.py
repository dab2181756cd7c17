"""Edges from what is known of two residues. Widths of a call: that of the projected nodes, bins of distances, c_z."""

from torch import Tensor

from app.devices import compute_dtype
from app.ops.backend import Backend, Call
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
    return Call(node.device.type, compute_dtype(node), node.shape[1], widths, backward)


edge_embedding = Operation(
    "edge_embedding",
    backends=[Backend("reference", "reference"), Backend("torch", "gathered")],
    describe=describe,
    order=lambda call: ("torch",),
)

__all__ = ["edge_embedding"]
