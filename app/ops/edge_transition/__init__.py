"""The residual MLP over edges and their nodes. Widths of a call: c_z, and that of the hidden layers."""

from torch import Tensor

from app.ops.backend import Backend, Call
from app.ops.select import Operation, wants_gradient


def describe(
    edge: Tensor, node: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], last: tuple[Tensor, Tensor]
) -> Call:
    widths = edge.shape[-1], first[0].shape[0]
    return Call(edge.device.type, edge.dtype, edge.shape[1], widths, wants_gradient(edge, node, first, second, last))


edge_transition = Operation(
    "edge_transition",
    backends=[Backend("reference", "reference")],
    describe=describe,
    order=lambda call: ("reference",),
)

__all__ = ["edge_transition"]
