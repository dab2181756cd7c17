"""The update of edges from the other sides of all triangles over them. Widths of a call: c_z, and that inside."""

from torch import Tensor

from app.ops.backend import Backend, Call
from app.ops.select import Operation, wants_gradient
from app.ops.triangle_multiplication.reference import Direction


def describe(
    edge: Tensor,
    mask: Tensor,
    direction: Direction,
    norm_in: tuple[Tensor, Tensor],
    p_in: Tensor,
    g_in: Tensor,
    norm_out: tuple[Tensor, Tensor],
    p_out: Tensor,
    g_out: Tensor,
) -> Call:
    widths = edge.shape[-1], p_in.shape[0] // 2
    gradient = wants_gradient(edge, norm_in, p_in, g_in, norm_out, p_out, g_out)
    return Call(edge.device.type, edge.dtype, edge.shape[1], widths, gradient)


triangle_multiplication = Operation(
    "triangle_multiplication",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "chunked"),
    ],
    describe=describe,
    order=lambda call: ("torch",),
)

__all__ = ["Direction", "triangle_multiplication"]
