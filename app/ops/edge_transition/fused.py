"""Edge transition in one kernel (`kernels.py`): edges are read once, written once, and the hidden layers stay on the chip."""

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from app.devices import compute_dtype, full_precision
from app.ops.edge_transition import kernels
from app.ops.edge_transition.reference import EPSILON
from app.ops.edge_transition.split import node_terms
from app.ops.edge_transition.tiles import Tile, forward_tile, precision


def edge_transition(
    edge: Tensor,
    node: Tensor,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    mask: Tensor,
) -> Tensor:
    """As the reference."""
    dtype = compute_dtype(edge)
    with full_precision(edge.device):
        edge, node = edge.to(dtype), node.to(dtype)
        first, second, last = ((weight.to(dtype), bias.to(dtype)) for weight, bias in (first, second, last))
        terms = node_terms(node, first, last)
        layers = first[0][:, : edge.shape[-1]], *second, last[0], *(x.float() for x in norm)
        return pair_mlp(edge, *terms, *layers, mask.float())


@torch.library.custom_op("trunkline::pair_mlp", mutates_args=())
def pair_mlp(
    edge: Tensor,
    first_i: Tensor,
    first_j: Tensor,
    last_i: Tensor,
    last_j: Tensor,
    w1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    mask: Tensor,
) -> Tensor:
    """Shapes and formula as of `chunked.PairMLP`."""
    return launch_forward(
        edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask,
        forward_tile(edge.dtype, len(w2)),
    )  # fmt: skip


@pair_mlp.register_fake
def _(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask):
    return edge.new_empty(*edge.shape[:3], len(w3))


def launch_forward(
    edge: Tensor, first_i: Tensor, first_j: Tensor, last_i: Tensor, last_j: Tensor, w1: Tensor, w2: Tensor, b2: Tensor,
    w3: Tensor, norm_weight: Tensor, norm_bias: Tensor, mask: Tensor, tile: Tile,
) -> Tensor:  # fmt: skip
    """`pair_mlp` with a given tile."""
    c_z, hidden, out = edge.shape[-1], len(w2), len(w3)
    edges = edge.reshape(-1, c_z)
    result = edge.new_empty(*edge.shape[:3], out)
    block_c, block_o = triton.next_power_of_2(c_z), triton.next_power_of_2(out)
    vectors = (x.contiguous() for x in (first_i, first_j, last_i, last_j))
    with torch.cuda.device_of(edge):
        kernels.forward_kernel[(triton.cdiv(len(edges), tile.pairs),)](
            _described(edges, tile.pairs, block_c),
            *vectors,
            _described(w1, tile.hidden, block_c),
            _described(w2, tile.step, tile.hidden),
            b2.contiguous(),
            _described(w3, block_o, tile.step),
            _described(w3[:, :c_z], block_o, block_c),
            norm_weight.contiguous(),
            norm_bias.contiguous(),
            mask.contiguous(),
            _described(result.view(-1, out), tile.pairs, block_o),
            len(edges),
            edge.shape[1],
            EPSILON,
            hidden=hidden,
            out=out,
            BLOCK_M=tile.pairs,
            BLOCK_H=tile.hidden,
            BLOCK_K=tile.step,
            BLOCK_O=block_o,
            STAGES=tile.stages,
            PRECISION=precision(),
            num_warps=tile.warps,
        )
    return result


_ALIGNED = 16
"""Bytes: of where a described matrix starts, and of its rows."""


def _described(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A matrix to be read in blocks [rows, columns], copied first where its rows are not as they must be."""
    aligned = matrix.data_ptr() % _ALIGNED == 0 and matrix.stride(0) * matrix.itemsize % _ALIGNED == 0
    if matrix.stride(1) != 1 or not aligned:
        matrix = matrix.clone(memory_format=torch.contiguous_format)
    return TensorDescriptor.from_tensor(matrix, [rows, columns])
