"""The same as products of matrices: nothing larger than the logits is made of N x N, forward and backward.

|q - k|^2 = |q|^2 - 2 q k + |k|^2, and softmax cancels |q|^2: with points joined to the scalars, one product of widened
queries and keys and a bias a key hold all distances. Edges are narrowed after they were averaged: weights sum to 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from app.devices import full_precision
from app.geometry import frames as frame
from app.ops.invariant_point_attention.reference import MASKED
from app.types import Frames


def invariant_point_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_points: Tensor,
    k_points: Tensor,
    v_points: Tensor,
    edge: Tensor,
    bias_weight: Tensor,
    bias_bias: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    point_weight: Tensor,
    frames: Frames,
    node_mask: Tensor,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and meaning as in `reference.py`. Products with the edges are taken in the edges' dtype.

    Frames are centred first: expanded squares of coordinates far from the origin would have no digits left.
    """
    near = frame.centred(frames, node_mask)
    widened = _widen(q, k, v, q_points, k_points, v_points, point_weight, near)
    queries, keys, values, query_bias, key_bias = widened
    bias = key_bias[:, :, None] + 3**-0.5 * bias_bias.to(key_bias.dtype)[:, None, None]
    absent, kept = MASKED * (node_mask - 1)[:, None, None], None
    if dropout > 0:  # it sees the whole logits, with what softmax would cancel
        bias = bias + query_bias[..., None]
        kept = F.dropout(torch.ones_like(bias), dropout)
    weight = (3**-0.5 * bias_weight).to(edge.dtype)
    attended, gathered = _Attention.apply(queries, keys, values, bias, edge, weight, absent, kept)

    scalars, points = attended.transpose(1, 2).tensor_split([v.shape[-1]], dim=-1)
    points = points.unflatten(-1, (-1, 3))
    points = frame.apply_inverse(near, points.flatten(2, 3)).unflatten(2, points.shape[2:4])
    pair_values = F.linear(*(x.to(attended.dtype) for x in (gathered, down_weight, down_bias)))
    present = node_mask[..., None, None]
    return scalars * present, points * present[..., None], pair_values * present


def _widen(q, k, v, q_points, k_points, v_points, point_weight, frames: Frames) -> tuple[Tensor, ...]:
    """Queries and keys [B, H, N, C + 3 P], values [B, H, N, C + 3 Pv], biases of queries and of keys [B, H, N].

    In the points' dtype, coordinates global. The queries' biases are the same for all keys.
    """
    counts = [points.shape[3] for points in (q_points, k_points, v_points)]
    local = torch.cat([q_points, k_points, v_points], dim=3)
    placed = frame.apply(frames, local.flatten(2, 3)).unflatten(2, local.shape[2:4]).transpose(1, 2)
    q_points, k_points, v_points = (part.flatten(-2) for part in placed.split(counts, dim=3))
    q, k, v = (x.transpose(1, 2).to(placed.dtype) for x in (q, k, v))
    # 9/2 is the variance of one squared point distance, 3 the number of terms in the sum (supplement of AlphaFold 2).
    weight = (point_weight.to(placed.dtype) * (3 * counts[0] * 4.5) ** -0.5)[:, None]
    return (
        torch.cat([q * (3 * q.shape[-1]) ** -0.5, weight[..., None] * q_points], dim=-1),
        *(torch.cat(parts, dim=-1) for parts in ((k, k_points), (v, v_points))),
        *(-0.5 * weight * points.square().sum(-1) for points in (q_points, k_points)),
    )


class _Attention(torch.autograd.Function):
    """softmax((queries keys^T + bias + edge weight^T) kept + absent), then the means of values and of edges.

    By hand, since autograd would make a gradient as large as the edges for each of their two uses and then add them.
    queries, keys: [B, H, N, W]; values: [B, H, N, V]; bias: [B, H, 1 or N, N]; edge: [B, N, N, c_z]; weight: [H, c_z];
    absent: [B, 1, 1, N]; kept: [B, H, N, N] or None -> [B, H, N, V] and, by residue, [B, N, H, c_z].
    """

    @staticmethod
    def forward(ctx, queries, keys, values, bias, edge, weight, absent, kept):
        logits = queries @ keys.mT
        logits += bias if kept is not None else bias + absent
        logits += (edge @ weight.mT).permute(0, 3, 1, 2)
        if kept is not None:
            logits = logits.mul_(kept).add_(absent)
        weights = torch.softmax(logits, dim=-1)
        ctx.save_for_backward(queries, keys, values, edge, weight, weights, kept)
        ctx.bias_shape = bias.shape
        return weights @ values, weights.transpose(1, 2).to(edge.dtype) @ edge

    @staticmethod
    @once_differentiable
    def backward(ctx, d_values, d_edges):
        with full_precision(d_values.device):
            return _Attention._backward(ctx, d_values, d_edges)

    @staticmethod
    def _backward(ctx, d_values, d_edges):
        queries, keys, values, edge, weight, weights, kept = ctx.saved_tensors
        d_weights = d_values @ values.mT
        d_weights += (d_edges @ edge.mT).transpose(1, 2)
        d_logits = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        del d_weights
        if kept is not None:
            d_logits = d_logits * kept
        by_query = torch.cat([weights, d_logits], dim=1).transpose(1, 2).to(edge.dtype)  # [B, N, 2 H, N]
        d_weight = (by_query[:, :, len(weight) :] @ edge).sum((0, 1))
        d_edge = by_query.mT @ torch.cat([d_edges, weight.expand_as(d_edges)], dim=2)
        d_bias = d_logits.sum_to_size(ctx.bias_shape)
        return (
            *(d_logits @ keys, d_logits.mT @ queries, weights.mT @ d_values),
            *(d_bias, d_edge, d_weight, None, None),
        )
