"""The residual MLP over edges and their nodes. Widths of a call: c_z, those of both hidden layers, and the output's."""

from torch import Tensor

from app.devices import NVIDIA, compute_dtype, has_hopper, kind
from app.ops.backend import HALF, Backend, Call
from app.ops.edge_transition.tiles import limit
from app.ops.packages import TRITON
from app.ops.select import Operation, wants_gradient


def describe(
    edge: Tensor,
    node: Tensor,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    mask: Tensor,
) -> Call:
    backward = wants_gradient(edge, node, first, second, last, norm)
    widths = edge.shape[-1], len(first[0]), len(second[0]), len(last[0])
    return Call(kind(edge.device), compute_dtype(edge), edge.shape[1], widths, backward)


def order(call: Call) -> tuple[str, ...]:
    """The fused kernels are made for Hopper: on GPUs before it the hidden layers do not fit in the registers.

    On an H100 in bfloat16, they take 28 us at 128 residues where torch takes 140, and 108 where it takes 514 at 256.
    """
    return ("triton", "torch") if has_hopper() else ("torch",)


edge_transition = Operation(
    "edge_transition",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "chunked"),
        Backend("triton", "fused", devices=(NVIDIA,), dtypes=HALF, limit=limit, **TRITON),
    ],
    describe=describe,
    order=order,
)

__all__ = ["edge_transition"]
