"""Edge transition a few pairs at a time: node terms made once a node, and hidden layers that never leave the cache.

688 to 492 kFLOP a pair at Multiflow's widths. The backward pass is written out by hand: autograd would allocate every
step of every chunk, and could not add up the gradients of the weights in place.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from app.devices import CPU, compute_dtype, full_precision, kind, product_dtype
from app.ops.edge_transition.reference import EPSILON
from app.ops.edge_transition.split import Part, add_up, chunks, node_terms
from app.ops.outline import alike
from app.ops.select import wants_gradient

PAIRS_IN_CACHE = 1024
"""Pairs of a chunk on a CPU: two hidden layers of 384 in float32 are 3 MiB, about the L2 cache of two cores."""

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
    """As the reference; beside edge and result, memory for one chunk.

    For the backward pass a CPU keeps the hidden layers, since it would take a third longer to make them again (and
    checkpointing spares it them all); elsewhere nothing is kept. A CPU whose products in half precision are slow makes
    them in float32.
    """
    dtype = compute_dtype(edge)
    on_cpu, inside = kind(edge.device) == CPU, product_dtype(dtype, edge.device)
    with full_precision(edge.device):
        node = node.to(inside)
        first, second, last = ((weight.to(inside), bias.to(inside)) for weight, bias in (first, second, last))
        terms = node_terms(node, first, last)
        precise = torch.promote_types(dtype, torch.float32)
        layers = first[0][:, : edge.shape[-1]], *second, last[0], *(x.to(precise) for x in norm)
        keep = on_cpu and wants_gradient(edge, terms, layers)
        given = edge.to(dtype), *terms, *layers, mask.to(precise)
        return _operator(keep, *given)[0] if torch.compiler.is_compiling() else PairMLP.apply(keep, *given)


class PairMLP(torch.autograd.Function):
    """LayerNorm(W3 (h + [edge, 0, 0]) + last_i + last_j) mask, h = relu(W2 relu(W1 edge + first_i + first_j) + b2).

    keep: hold the hidden layers for the backward pass. edge: [B, N, N, c_z]; first_*: [B, N, hidden]; last_*:
    [B, N, out]; W1: [hidden, c_z]; W2: [hidden, hidden]; W3: [out, hidden], all of the dtype that products are made in;
    LayerNorm and mask in float32, or all in float64. Returns [B, N, N, out] in the edge's dtype.
    """

    @staticmethod
    def forward(ctx, keep, *given):
        out, kept = _forward(keep, *given)
        ctx.save_for_backward(*given, kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return _gradients(_backward, ctx.saved_tensors, grad)


def _forward(
    keep: bool,
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
) -> tuple[Tensor, Tensor]:
    """The result, and the hidden layers that are kept: [2, pairs, hidden], or [2, 0, hidden]."""
    layers = _Layers(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3)
    out, kept = _empty(keep, edge, w2, w3)
    for part, here in _chunks(edge):
        _, second = layers.hidden(part, kept[:, here] if keep else _scratch(kept, here))
        last = layers.last(part, layers.joined(part, second)).to(mask.dtype)
        normed = F.layer_norm(last, last.shape[-1:], norm_weight, norm_bias, EPSILON)
        out[part] = normed.mul_(mask[part].reshape(-1, 1)).view_as(out[part])
    return out, kept


def _empty(keep: bool, edge: Tensor, w2: Tensor, w3: Tensor) -> tuple[Tensor, Tensor]:
    """What `_forward` returns, not yet filled."""
    size, length = edge.shape[:2]
    pairs = size * length**2 if keep else 0
    return edge.new_empty(size, length, length, len(w3)), w2.new_empty(2, pairs, len(w2))


def _backward(grad: Tensor, given: list[Tensor], kept: Tensor) -> list[Tensor]:
    """Gradients of the first eleven tensors that `_forward` takes."""
    edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask = given
    layers = _Layers(edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3)
    c_z, shape = edge.shape[-1], w3.shape[:1]
    grad_edge = torch.empty_like(edge, memory_format=torch.contiguous_format)
    sums = [mask.new_zeros(x.shape) for x in (first_i, first_j, last_i, last_j)]
    grads = [mask.new_zeros(x.shape) for x in (w1, w2, b2, w3, norm_weight, norm_bias)]
    grad_w1, grad_w2, grad_b2, grad_w3, *grad_norm = grads
    for part, here in _chunks(edge):
        pairs = (*edge[part].shape[:3], -1)
        first, second = kept[:, here] if kept.numel() else layers.hidden(part, _scratch(kept, here))
        joined = layers.joined(part, second)
        last = layers.last(part, joined).to(mask.dtype)
        _, mean, rstd = torch.native_layer_norm(last, shape, norm_weight, norm_bias, EPSILON)
        above = grad[part].reshape(-1, *shape).to(mask.dtype) * mask[part].reshape(-1, 1)
        above, *of_norm = torch.ops.aten.native_layer_norm_backward(
            above, last, shape, mean, rstd, norm_weight, norm_bias, [True, True, True]
        )
        for total, share in zip(grad_norm, of_norm, strict=True):
            total += share
        above = above.to(w3.dtype)
        add_up(part, above.view(pairs), *sums[2:])
        _accumulate(grad_w3, above, joined)

        above = above @ w3
        into_edge = above[:, :c_z].clone()
        above = torch.ops.aten.threshold_backward(above, second, 0)
        _accumulate(grad_w2, above, first)
        grad_b2 += above.sum(0, dtype=mask.dtype)

        above = torch.ops.aten.threshold_backward(above @ w2, first, 0)
        add_up(part, above.view(pairs), *sums[:2])
        _accumulate(grad_w1, above, layers.edges(part))
        grad_edge[part] = _add_product(into_edge, above, w1).view(pairs)
    return [grad_edge, *(x.to(w2.dtype) for x in (*sums, *grads[:4])), *grad_norm]


def _gradients(backward: Callable[..., list[Tensor]], saved: tuple[Tensor, ...], grad: Tensor) -> tuple:
    *given, kept = saved
    with full_precision(grad.device):
        return None, *backward(grad, given, kept), None


# To a compiler it is one operator: chunks that it saw would have their number, and so the length, built in.
_operator = torch.library.custom_op("trunkline::chunked_pair_mlp", _forward, mutates_args=())
_backward_operator = torch.library.custom_op("trunkline::chunked_pair_mlp_backward", _backward, mutates_args=())


@_operator.register_fake
def _(keep, edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3, norm_weight, norm_bias, mask):
    return _empty(keep, edge, w2, w3)


@_backward_operator.register_fake
def _(grad, given, kept):
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in given[:-1]]


_operator.register_autograd(
    lambda ctx, grad, _: _gradients(_backward_operator, ctx.saved_tensors, grad),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[1:], output[1]),
)


def _chunks(edge: Tensor) -> Iterator[tuple[Part, slice]]:
    """Chunks, and where their pairs lie among all."""

    def places() -> Iterator[tuple[Part, slice]]:
        stop = 0
        for part in chunks(*edge.shape[:2], PAIRS_IN_CACHE if kind(edge.device) == CPU else PAIRS_ON_GPU):
            start, stop = stop, stop + edge[part].shape[:3].numel()
            yield part, slice(start, stop)

    return alike(places(), size=lambda chunk: chunk[1].stop - chunk[1].start, total=edge.shape[:3].numel())


def _scratch(kept: Tensor, here: slice) -> Tensor:
    """Memory for both hidden layers of a chunk."""
    return kept.new_empty(2, here.stop - here.start, kept.shape[-1])


class _Layers:
    """The layers over the pairs of one chunk, [pairs, width]."""

    def __init__(self, edge, first_i, first_j, last_i, last_j, w1, w2, b2, w3):
        self.edge, self.w1, self.w2, self.b2, self.w3 = edge, w1, w2, b2, w3
        self.first_i, self.first_j, self.last_i, self.last_j = first_i, first_j, last_i, last_j

    def edges(self, part: Part) -> Tensor:
        return self.edge[part].reshape(-1, self.edge.shape[-1]).to(self.w1.dtype)

    def hidden(self, part: Part, into: Tensor) -> tuple[Tensor, Tensor]:
        """Both hidden layers, written into [2, pairs, hidden]."""
        first, second = into
        _add_product(_of_pairs(part, self.first_i, self.first_j, first), self.edges(part), self.w1.mT).relu_()
        return first, torch.addmm(self.b2, first, self.w2.mT, out=second).relu_()

    def joined(self, part: Part, second: Tensor) -> Tensor:
        """The second hidden layer and the residual, in a copy: the layer itself tells which of its units are at 0."""
        edges, joined = self.edges(part), second.clone()
        joined[:, : edges.shape[-1]] += edges
        return joined

    def last(self, part: Part, joined: Tensor) -> Tensor:
        return _add_product(_of_pairs(part, self.last_i, self.last_j), joined, self.w3.mT)


def _of_pairs(part: Part, of_i: Tensor, of_j: Tensor, into: Tensor | None = None) -> Tensor:
    """Terms of two nodes for all pairs of a chunk: [pairs, width]."""
    of_i, of_j = of_i[part][:, :, None], of_j[part[0]][:, None]
    out = None if into is None else into.view(*of_i.shape[:2], of_j.shape[2], -1)
    return torch.add(of_i, of_j, out=out).flatten(0, 2)


def _accumulate(total: Tensor, above: Tensor, below: Tensor) -> None:
    """The gradient of a weight from one chunk; in float32, as many chunks would lose themselves in half precision."""
    if total.dtype == above.dtype:
        _add_product(total, above.mT, below)
    else:
        total += above.mT @ below


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """In place. Not `addmm_`, which torch's counter of FLOPs does not know."""
    return torch.addmm(total, left, right, out=total)
