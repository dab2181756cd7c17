"""Edge transition a few pairs at a time: node terms made once a node, and a hidden layer that never leaves the cache.

688 to 492 kFLOP a pair at Multiflow's widths. The backward pass makes the hidden layers of a chunk again and adds up the
gradients of the weights, written out by hand: recomputing through autograd would allocate every step of every chunk.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from app.devices import CPU, compute_dtype, full_precision
from app.ops.edge_transition.reference import EPSILON
from app.ops.edge_transition.split import Part, add_up, chunks, node_terms

PAIRS_IN_CACHE = 512
"""Pairs of a chunk on a CPU: two hidden layers of 384 in float32 are 1.5 MiB, the L2 cache of one core."""

PAIRS_ON_GPU = 2**16
"""Pairs of a chunk elsewhere: matrices large enough to fill a GPU, 100 MB of hidden layers in half precision."""


def edge_transition(
    edge: Tensor,
    node: Tensor,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    mask: Tensor,
) -> Tensor:
    """As the reference; beside edge and result, memory for one chunk, forward and backward."""
    dtype = compute_dtype(edge)
    with full_precision(edge.device):
        edge, node = edge.to(dtype), node.to(dtype)
        first, second, last = ((weight.to(dtype), bias.to(dtype)) for weight, bias in (first, second, last))
        terms = node_terms(node, first, last)
        precise = torch.promote_types(dtype, torch.float32)
        layers = first[0][:, : edge.shape[-1]], *second, last[0], *(x.to(precise) for x in norm)
        return PairMLP.apply(edge, *terms, *layers, mask.to(precise))


class PairMLP(torch.autograd.Function):
    """LayerNorm(W3 (h + [edge, 0, 0]) + last_i + last_j) mask, h = relu(W2 relu(W1 edge + first_i + first_j) + b2).

    edge: [B, N, N, c_z]; first_*: [B, N, hidden]; last_*: [B, N, out]; W1: [hidden, c_z]; W2: [hidden, hidden];
    W3: [out, hidden], all of one dtype; LayerNorm and mask in float32, or all in float64. Returns [B, N, N, out].
    """

    @staticmethod
    def forward(ctx, edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask):
        ctx.save_for_backward(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask)
        layers = _Layers(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3)
        out = edge.new_empty(*edge.shape[:3], len(w3))
        for part in _chunks(edge):
            last = layers.last(part, *layers.hidden(part)[1:])
            normed = F.layer_norm(last.to(mask.dtype), last.shape[-1:], norm_weight, norm_bias, EPSILON)
            out[part] = normed.mul_(mask[part].reshape(-1, 1)).view_as(out[part])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask = ctx.saved_tensors
        layers = _Layers(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3)
        c_z, shape = edge.shape[-1], w3.shape[:1]
        grad_edge = torch.empty_like(edge, memory_format=torch.contiguous_format)
        sums = [torch.zeros_like(x, dtype=mask.dtype) for x in (first_i, first_j, last_i, last_j)]
        sum_first_i, sum_first_j, sum_last_i, sum_last_j = sums
        grads = [torch.zeros_like(x, dtype=mask.dtype) for x in (w1, w2, b2, w3, norm_weight, norm_bias)]
        grad_w1, grad_w2, grad_b2, grad_w3, grad_norm_weight, grad_norm_bias = grads
        for part in _chunks(edge):
            first, second, residual = layers.hidden(part)
            last = layers.last(part, second, residual).to(mask.dtype)
            _, mean, rstd = torch.native_layer_norm(last, shape, norm_weight, norm_bias, EPSILON)
            above = grad[part].reshape(-1, *shape).to(mask.dtype) * mask[part].reshape(-1, 1)
            above, *of_norm = torch.ops.aten.native_layer_norm_backward(
                above, last, shape, mean, rstd, norm_weight, norm_bias, [True, True, True]
            )
            grad_norm_weight += of_norm[0]
            grad_norm_bias += of_norm[1]
            above = above.to(edge.dtype)
            add_up(part, above.view(*edge[part].shape[:3], -1), sum_last_i, sum_last_j)
            _accumulate(grad_w3[:, :c_z], above, residual)
            _accumulate(grad_w3[:, c_z:], above, second[:, c_z:])

            above = above @ w3
            into_edge = above[:, :c_z].contiguous()
            above = torch.ops.aten.threshold_backward(above, second, 0)
            _accumulate(grad_w2, above, first)
            grad_b2 += above.sum(0, dtype=mask.dtype)
            above = torch.ops.aten.threshold_backward(above @ w2, first, 0)
            add_up(part, above.view(*edge[part].shape[:3], -1), sum_first_i, sum_first_j)
            _accumulate(grad_w1, above, layers.edges(part))
            grad_edge[part] = into_edge.addmm_(above, w1).view_as(grad_edge[part])
        of_terms = [x.to(edge.dtype) for x in sums]
        of_layers = [x.to(edge.dtype) for x in grads[:4]]
        return grad_edge, *of_terms, *of_layers, grad_norm_weight, grad_norm_bias, None


def _chunks(edge: Tensor) -> Iterator[Part]:
    return chunks(*edge.shape[:2], PAIRS_IN_CACHE if edge.device.type == CPU else PAIRS_ON_GPU)


class _Layers:
    """The layers over the pairs of one chunk, [pairs, width]."""

    def __init__(self, edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3):
        self.edge, self.w1, self.w2, self.b2, self.w3 = edge, w1, w2, b2, w3
        self.first_i, self.first_j, self.last_i, self.last_j = first_i, first_j, last_i, last_j

    def edges(self, part: Part) -> Tensor:
        return self.edge[part].reshape(-1, self.edge.shape[-1])

    def hidden(self, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        """First and second hidden layer, and the second's first c_z columns with the edges added."""
        edge = self.edges(part)
        first = _of_pairs(part, self.first_i, self.first_j).addmm_(edge, self.w1.mT).relu_()
        second = torch.addmm(self.b2, first, self.w2.mT).relu_()
        return first, second, second[:, : edge.shape[-1]] + edge

    def last(self, part: Part, second: Tensor, residual: Tensor) -> Tensor:
        c_z = residual.shape[-1]
        last = _of_pairs(part, self.last_i, self.last_j).addmm_(residual, self.w3[:, :c_z].mT)
        return last.addmm_(second[:, c_z:], self.w3[:, c_z:].mT)


def _of_pairs(part: Part, of_i: Tensor, of_j: Tensor) -> Tensor:
    """Terms of two nodes for all pairs of a chunk: [pairs, width]."""
    return (of_i[part][:, :, None] + of_j[part[0]][:, None]).flatten(0, 2)


def _accumulate(total: Tensor, above: Tensor, below: Tensor) -> None:
    """The gradient of a weight from one chunk; in float32, since many chunks would lose themselves in half precision."""
    if total.dtype == above.dtype:
        total.addmm_(above.mT, below)
    else:
        total += above.mT @ below
