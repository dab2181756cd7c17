"""The same as products of matrices: nothing larger than the logits is made of N x N, forward and backward."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from app.geometry import frames as frame
from app.ops.invariant_point_attention.reference import MASKED
from app.ops.invariant_point_attention.widened import key_bias, narrow, widen
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
    """Shapes and meaning as in `reference.py`. Products with the edges are taken in the edges' dtype."""
    near = frame.centred(frames, node_mask)
    wide = widen(q, k, v, q_points, k_points, v_points, point_weight, near)
    absent = MASKED * (node_mask - 1)[:, None, None]
    if dropout > 0:  # it sees the whole logits, with what softmax would cancel
        same_for_all_keys = wide.query_bias + 3**-0.5 * bias_bias.to(wide.query_bias.dtype)[:, None]
        bias = wide.key_bias[:, :, None] + same_for_all_keys[..., None]
        kept = F.dropout(torch.ones_like(bias), dropout)
    else:
        bias, kept, absent = key_bias(wide, bias_bias)[:, :, None] + absent, None, None
    weight = (3**-0.5 * bias_weight).to(edge.dtype)
    values, edges = _Attention.apply(wide.queries, wide.keys, wide.values, bias, edge, weight, kept, absent)
    return narrow(values, edges, v.shape[-1], down_weight, down_bias, near, node_mask)


class _Attention(torch.autograd.Function):
    """softmax((queries keys^T + bias + edge weight^T) kept + absent), then the means of values and of edges.

    By hand, since autograd would make a gradient as large as the edges for each of their two uses and then add them.
    queries, keys: [B, H, N, W]; values: [B, H, N, V]; bias: [B, H, 1 or N, N]; edge: [B, N, N, c_z]; weight: [H, c_z];
    kept: [B, H, N, N]; absent: [B, 1, 1, N] -> [B, H, N, V], [B, H, N, c_z].
    """

    @staticmethod
    def forward(ctx, queries, keys, values, bias, edge, weight, kept, absent):
        logits = queries @ keys.mT
        logits += bias
        logits += (edge @ weight.mT).permute(0, 3, 1, 2)
        if kept is not None:
            logits = logits.mul_(kept).add_(absent)
        weights = torch.softmax(logits, dim=-1)
        ctx.save_for_backward(queries, keys, values, edge, weight, weights, kept)
        ctx.bias_shape = bias.shape
        return weights @ values, (weights.transpose(1, 2).to(edge.dtype) @ edge).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_values, d_edges):
        queries, keys, values, edge, weight, weights, kept = ctx.saved_tensors
        d_edges = d_edges.transpose(1, 2).to(edge.dtype)  # [B, N, H, c_z]
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
