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

    Of an H200, bfloat16, at 128, 256 and 512 residues they take 0.05, 0.13 and 0.44 ms, the reference 0.14, 0.47 and
    1.7; with the backward pass 0.39, 0.84 and 3.0, and 0.42, 1.4 and 3.7. In float32 with it the reference takes 1.2,
    4.2 and 15.6, and `torch` 1.5, 4.7 and 18.3: but it makes the hidden layers again, where the reference keeps those
    of all blocks.
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
