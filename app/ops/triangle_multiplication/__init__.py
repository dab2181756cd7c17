"""The update of edges from the other sides of all triangles over them. Widths of a call: c_z, and that inside."""

from torch import Tensor

from app.devices import NVIDIA, autocast_dtype, kind, under_autocast
from app.ops.backend import FLOATS, Backend, Call
from app.ops.packages import CUEQUIVARIANCE, shortest_in_cuequivariance
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
    dtype = autocast_dtype(edge.device) if under_autocast(edge.device) else edge.dtype
    return Call(kind(edge.device), dtype, edge.shape[1], widths, gradient)


def limit_of_cuequivariance(call: Call) -> str | None:
    outer, inner = call.widths
    if outer != inner or outer % 32:
        return f"takes edges as wide inside as outside, a width that 32 divides, not {outer} and {inner}"
    return None


def order(call: Call) -> tuple[str, ...]:
    """Of an H200, bfloat16, at 128, 256 and 512 residues cuEquivariance takes 0.05, 0.11 and 0.37 ms, torch 0.21, 0.65
    and 2.6; with the backward pass 0.29, 0.68 and 2.1, and 0.60, 2.1 and 6.4. In float32 0.10, 0.38 and 1.75, and 0.27,
    1.0 and 4.3; with the backward pass 0.59, 1.8 and 7.7, and 0.85, 3.2 and 11.9."""
    return ("cuequivariance", "torch")


triangle_multiplication = Operation(
    "triangle_multiplication",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "chunked"),
        Backend(
            "cuequivariance",
            "cuequivariance",
            devices=(NVIDIA,),
            dtypes=FLOATS,
            shortest=shortest_in_cuequivariance("CUEQ_TRIMUL_FALLBACK_THRESHOLD"),
            limit=limit_of_cuequivariance,
            **CUEQUIVARIANCE,
        ),
    ],
    describe=describe,
    order=order,
)

__all__ = ["Direction", "triangle_multiplication"]
