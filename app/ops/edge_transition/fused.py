"""Edge transition in Triton (`kernels.py`): edges are read once, written once, and the hidden layers stay on the chip.

The backward pass is made of two such kernels, which leave what the weights' gradients are products of in memory, for
one chunk of pairs at a time: sums over all pairs are what cuBLAS does best, and in a kernel they would take atomics.
"""

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from app.devices import compute_dtype, current, full_precision
from app.ops.edge_transition import kernels
from app.ops.edge_transition.reference import EPSILON
from app.ops.edge_transition.split import add_up, chunks, node_terms
from app.ops.edge_transition.tiles import NARROWEST, Tile, backward_tile, forward_tile, pairs_at_once


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
    given = edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask
    return launch_forward(*given, forward_tile(len(w2)))


@pair_mlp.register_fake
def _(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask):
    return edge.new_empty(*edge.shape[:3], len(w3))


@torch.library.custom_op("trunkline::pair_mlp_backward", mutates_args=())
def pair_mlp_backward(
    grad: Tensor,
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
) -> list[Tensor]:
    """Gradients of all arguments of `pair_mlp` but the mask."""
    given = grad, edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask
    return launch_backward(*given, backward_tile(len(w2)), pairs_at_once(mask.numel()))


@pair_mlp_backward.register_fake
def _(grad, *given):
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in given[:-1]]


pair_mlp.register_autograd(
    lambda ctx, grad: (*pair_mlp_backward(grad, *ctx.saved_tensors), None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def launch_forward(
    edge: Tensor, first_i: Tensor, first_j: Tensor, last_i: Tensor, last_j: Tensor, w1: Tensor, w2: Tensor, b2: Tensor,
    w3: Tensor, norm_weight: Tensor, norm_bias: Tensor, mask: Tensor, tile: Tile,
) -> Tensor:  # fmt: skip
    """`pair_mlp` with a given tile."""
    terms = first_i, first_j, last_i, last_j
    shape = _Shape(tile, edge.shape[-1], len(w2), len(w3))
    edges, result = edge.flatten(0, 2), edge.new_empty(*edge.shape[:3], shape.out)
    if not len(edges):  # nor does a descriptor describe nothing
        return result
    with current(edge.device):
        kernels.forward_kernel[(triton.cdiv(len(edges), tile.pairs),)](
            shape.edges(edges),
            *(term.contiguous() for term in terms),
            *shape.weights(w1, w2, b2, w3),
            norm_weight.contiguous(),
            norm_bias.contiguous(),
            mask.contiguous(),
            shape.outs(result.flatten(0, 2)),
            len(edges),
            edge.shape[1],
            EPSILON,
            **shape.constants,
            out=shape.out,
            BLOCK_O=shape.block_out,
        )
    return result


def launch_backward(
    grad: Tensor, edge: Tensor, first_i: Tensor, first_j: Tensor, last_i: Tensor, last_j: Tensor, w1: Tensor,
    w2: Tensor, b2: Tensor, w3: Tensor, norm_weight: Tensor, norm_bias: Tensor, mask: Tensor, tile: Tile,
    at_once: int,
) -> list[Tensor]:  # fmt: skip
    """`pair_mlp_backward` with a given tile, so many pairs at a time."""
    terms = [term.contiguous() for term in (first_i, first_j, last_i, last_j)]
    norm_weight = norm_weight.contiguous()
    shape = _Shape(tile, edge.shape[-1], len(w2), len(w3))
    size, length = edge.shape[:2]
    there, back = shape.weights(w1, w2, b2, w3), shape.weights_of_backward(w1, w2, w3)
    grad_edge = edge.new_empty(edge.shape)
    of_terms = [torch.zeros_like(term, dtype=torch.float32) for term in terms]
    of_layers = [torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (w1, w2, b2, w3)]
    of_w1, of_w2, of_b2, of_w3 = of_layers
    of_norm = [torch.zeros(shape.out, device=edge.device) for _ in range(2)]
    for part in chunks(size, length, at_once):
        edges, above, present = (x[part].reshape(-1, x.shape[-1]) for x in (edge, grad, mask[..., None]))
        pairs, tiles = len(edges), triton.cdiv(len(edges), tile.pairs)
        first, second, grad_first, grad_second = (edge.new_empty(pairs, shape.hidden) for _ in range(4))
        grad_last, sums = edge.new_empty(pairs, shape.out), norm_weight.new_empty(2, tiles, shape.out)
        with current(edge.device):
            kernels.remake_kernel[(tiles,)](
                shape.outs(above),
                shape.edges(edges),
                *terms,
                *there,
                norm_weight,
                present.contiguous(),
                shape.blocks(first),
                shape.steps(second),
                shape.outs(grad_last),
                *sums,
                (part[0].start * length + part[1].start) * length,
                pairs,
                length,
                EPSILON,
                **shape.constants,
                out=shape.out,
                BLOCK_O=shape.block_out,
            )
            kernels.backward_kernel[(tiles,)](
                shape.outs(grad_last),
                shape.steps(first),
                shape.blocks(second),
                *back,
                shape.steps(grad_first),
                shape.blocks(grad_second),
                shape.edges(grad_edge[part].view(-1, shape.c_z)),
                **shape.constants,
            )
        for total, by_tile in zip(of_norm, sums, strict=True):
            total += by_tile.sum(0)
        rows = (*edge[part].shape[:3], -1)
        add_up(part, grad_first.view(rows), of_terms[0], of_terms[1])
        add_up(part, grad_last.view(rows), of_terms[2], of_terms[3])
        of_w1 += grad_first.mT @ edges
        of_w2 += grad_second.mT @ first
        of_b2 += grad_second.sum(0, dtype=torch.float32)
        of_w3 += grad_last.mT @ second
        of_w3[:, : shape.c_z] += grad_last.mT @ edges  # the residual
    return [grad_edge, *(x.to(edge.dtype) for x in (*of_terms, *of_layers)), *of_norm]


class _Shape:
    """Widths of the operation, sides of its blocks, and matrices described in such blocks."""

    def __init__(self, tile: Tile, c_z: int, hidden: int, out: int):
        self.tile, self.c_z, self.hidden, self.out = tile, c_z, hidden, out
        self.block_edge, self.block_out = (max(NARROWEST, triton.next_power_of_2(width)) for width in (c_z, out))
        self.constants = {
            "hidden": hidden,
            "BLOCK_M": tile.pairs,
            "BLOCK_H": tile.hidden,
            "BLOCK_K": tile.step,
            "STAGES": tile.stages,
            "num_warps": tile.warps,
        }

    def edges(self, matrix: Tensor) -> TensorDescriptor:
        return _described(matrix, self.tile.pairs, self.block_edge)

    def outs(self, matrix: Tensor) -> TensorDescriptor:
        return _described(matrix, self.tile.pairs, self.block_out)

    def blocks(self, matrix: Tensor) -> TensorDescriptor:
        return _described(matrix, self.tile.pairs, self.tile.hidden)

    def steps(self, matrix: Tensor) -> TensorDescriptor:
        return _described(matrix, self.tile.pairs, self.tile.step)

    def weights(self, w1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor) -> tuple:
        return (
            _described(w1, self.tile.hidden, self.block_edge),
            _described(w2, self.tile.step, self.tile.hidden),
            b2.contiguous(),
            _described(w3, self.block_out, self.tile.step),
            _described(w3[:, : self.c_z], self.block_out, self.block_edge),
        )

    def weights_of_backward(self, w1: Tensor, w2: Tensor, w3: Tensor) -> tuple:
        return (
            _described(w1, self.tile.step, self.block_edge),
            _described(w2, self.tile.hidden, self.tile.step),
            _described(w3, self.block_out, self.tile.hidden),
            _described(w3[:, : self.c_z], self.block_out, self.block_edge),
        )


_ALIGNED = 16
"""Bytes: of where a described matrix starts, and of its rows."""


def _described(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A matrix to be gone through in blocks [rows, columns]; a copy where its rows are not as they must be."""
    aligned = matrix.data_ptr() % _ALIGNED == 0 and matrix.stride(0) * matrix.itemsize % _ALIGNED == 0
    if matrix.stride(1) != 1 or not aligned:
        matrix = matrix.clone(memory_format=torch.contiguous_format)
    return TensorDescriptor.from_tensor(matrix, [rows, columns])
