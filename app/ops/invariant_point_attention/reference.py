"""Invariant point attention as published (AlphaFold 2, algorithm 22), with every intermediate written out."""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.geometry import frames as frame
from app.types import Frames

MASKED = 1e5
"""Subtracted from the logits of pairs with an absent residue (Multiflow's value; finite, so no row becomes NaN)."""


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
    """Attention whose logits add scalar products, a bias from the edges, and distances between points in global space.

    q, k, v: [B, N, H, C]. q_points, k_points: [B, N, H, P, 3] and v_points: [B, N, H, Pv, 3] in local coordinates, in
    the frames' unit. edge: [B, N, N, c_z], with the layers that make the pair bias, [H, c_z] and [H], and narrow the
    pair values, [c_d, c_z] and [c_d]. point_weight: [H], positive weight of the squared distances, all constants but
    the head's own gamma left out. frames: [B, N]. node_mask: [B, N], 1 = present. dropout: rate on the logits.
    Points, frames and mask are float32; q, k, v, edge and the layers may be bfloat16 or float16.
    Returns scalars [B, N, H, C], points [B, N, H, Pv, 3] in local coordinates, pair values [B, N, H, c_d]: in the
    points' dtype, and 0 in rows of absent residues.
    """
    width, num_points = q.shape[-1], q_points.shape[-2]
    q, k, v, edge = (x.to(q_points.dtype) for x in (q, k, v, edge))
    layers = bias_weight, bias_bias, down_weight, down_bias, point_weight
    bias_weight, bias_bias, down_weight, down_bias, point_weight = (x.to(q_points.dtype) for x in layers)
    pair_bias = F.linear(edge, bias_weight, bias_bias).permute(0, 3, 1, 2)
    logits = torch.einsum("bihc,bjhc->bhij", q, k) * (3 * width) ** -0.5 + 3**-0.5 * pair_bias

    def to_global(points: Tensor) -> Tensor:
        return frame.apply(frames, points.flatten(2, 3)).unflatten(2, points.shape[2:4])

    displacement = to_global(q_points)[:, :, None] - to_global(k_points)[:, None]  # [B, N, N, H, P, 3]
    squared = displacement.square().sum(-1).sum(-1).permute(0, 3, 1, 2)
    # 9/2 is the variance of one squared point distance, 3 the number of terms in the sum (supplement of AlphaFold 2).
    logits = logits - 0.5 * (point_weight * (3 * num_points * 4.5) ** -0.5)[:, None, None] * squared

    logits = F.dropout(logits, dropout, training=dropout > 0)
    pair_mask = node_mask[:, None, :, None] * node_mask[:, None, None, :]
    weights = torch.softmax(logits + MASKED * (pair_mask - 1), dim=-1)

    scalars = torch.einsum("bhij,bjhc->bihc", weights, v)
    points = torch.einsum("bhij,bjhpx->bihpx", weights, to_global(v_points))
    points = frame.apply_inverse(frames, points.flatten(2, 3)).unflatten(2, points.shape[2:4])
    narrowed = F.linear(edge, down_weight, down_bias)
    pair_values = torch.einsum("bhij,bijc->bihc", weights, narrowed)
    present = node_mask[..., None, None]
    return scalars * present, points * present[..., None], pair_values * present
