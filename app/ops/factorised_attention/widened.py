"""The same as plain attention with widened queries, keys and values: no N x N tensor where torch's kernel makes none.

|q - k|^2 = |q|^2 - 2 q k + |k|^2, and softmax cancels |q|^2: the rest is a dot product (FlashIPA, Liu et al. 2025).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.geometry import frames as frame
from app.ops.factorised_attention.reference import ABSENT
from app.types import Frames

_MULTIPLE = 8
"""Fused kernels want widths divisible by this."""


def factorised_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_points: Tensor,
    k_points: Tensor,
    v_points: Tensor,
    bias_left: Tensor,
    bias_right: Tensor,
    value_left: Tensor,
    value_right: Tensor,
    point_weight: Tensor,
    frames: Frames,
    node_mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and meaning as in `reference.py`; memory goes with N, forward and backward.

    Frames are centred first: expanded squares of coordinates far from the origin would have no digits left.
    """
    width, num_points = q.shape[-1], q_points.shape[-2]
    num_heads, (rank, pair_width) = q.shape[2], value_left.shape[2:]
    near = frame.centred(frames, node_mask)
    present = node_mask[..., None, None]

    def to_global(points: Tensor) -> Tensor:
        """[B, N, H, P, 3] -> [B, N, H, 3 P]."""
        return frame.apply(near, points.flatten(2, 3)).unflatten(2, points.shape[2:4]).flatten(-2)

    weight = (point_weight * (3 * num_points * 4.5) ** -0.5)[:, None]
    placed = to_global(k_points)
    key_bias = -0.5 * weight * placed.square().sum(-1, keepdim=True) + ABSENT * (1 - present)
    query_parts = q * (3 * width) ** -0.5, weight * to_global(q_points), 3**-0.5 * bias_left, torch.ones_like(key_bias)
    right = value_right.flatten(-2)[:, :, None].expand(-1, -1, num_heads, -1)
    value_parts = v, to_global(v_points), right

    queries, keys = torch.cat(query_parts, -1), torch.cat([k, placed, bias_right, key_bias], -1)
    attended = _attention(queries, keys, torch.cat(value_parts, -1)) * present
    scalars, points, gathered = attended.split([part.shape[-1] for part in value_parts], dim=-1)

    points = frame.apply_inverse(near, points.unflatten(-1, (-1, 3)).flatten(2, 3)).unflatten(2, (num_heads, -1))
    pair_values = (value_left[:, :, None] * gathered.unflatten(-1, (rank, pair_width))).sum(-2)
    return scalars, points * present[..., None], pair_values


def _attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention without scale, [B, N, H, W], [B, N, H, W] and [B, N, H, V] -> [B, N, H, V].

    Zeros make all widths equal: with unequal ones torch writes the N x N weights out on a CPU.
    """
    widest = max(queries.shape[-1], values.shape[-1])
    width = -(-widest // _MULTIPLE) * _MULTIPLE
    padded = [F.pad(x, (0, width - x.shape[-1])).transpose(1, 2) for x in (queries, keys, values)]
    return F.scaled_dot_product_attention(*padded, scale=1.0).transpose(1, 2)[..., : values.shape[-1]]
