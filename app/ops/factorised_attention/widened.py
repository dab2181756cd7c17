"""The same as plain attention with widened queries, keys and values: no N x N tensor where torch's kernel makes none.

|q - k|^2 = |q|^2 - 2 q k + |k|^2, and softmax cancels |q|^2: the rest is a dot product (FlashIPA, Liu et al. 2025).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from app.geometry import frames as frame
from app.ops.absent import filled
from app.ops.sdpa import fused_attention
from app.types import Frames

MULTIPLE = 8
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

    In half precision the gradient of `point_weight` loses digits with the protein's size, since torch's kernels round
    those of the logits: in bfloat16 it was off by up to a sixth of its largest entry at 512 residues.
    """
    everything = q, k, v, q_points, k_points, v_points, bias_left, bias_right, value_left, value_right, point_weight
    return widened(_attention, *everything, frames, node_mask)


def widened(
    attention: Callable[[Tensor, Tensor, Tensor], Tensor],
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
    """The operation by an attention of [B, N, H, W] each, all in v's dtype, without scale and mask.

    Frames are centred first: expanded squares of coordinates far from the origin would have no digits left. What is
    made of coordinates goes into the dot product with twice the digits of a half precision (`_precise`).
    """
    width, num_points, dtype = q.shape[-1], q_points.shape[-2], v.dtype
    num_heads, (rank, pair_width) = q.shape[2], value_left.shape[2:]
    near = frame.centred(frames, node_mask)
    keys, _ = filled(node_mask)

    def to_global(points: Tensor) -> Tensor:
        """[B, N, H, P, 3] -> [B, N, H, 3 P]."""
        return frame.apply(near, points.flatten(2, 3)).unflatten(2, points.shape[2:4]).flatten(-2)

    weight = (point_weight.to(q_points.dtype) * (3 * num_points * 4.5) ** -0.5)[:, None]
    placed = to_global(k_points)
    key_bias = -0.5 * weight * placed.square().sum(-1, keepdim=True)
    key_bias = key_bias.masked_fill(~keys[..., None, None], torch.finfo(dtype).min / 2)
    q_near, k_near = _precise(weight * to_global(q_points), placed, dtype)
    ones, key_bias = _precise(torch.ones_like(key_bias), key_bias, dtype)

    queries = [q.to(dtype) * (3 * width) ** -0.5, q_near, 3**-0.5 * bias_left.to(dtype), ones]
    right = value_right.to(dtype).flatten(-2)[:, :, None].expand(-1, -1, num_heads, -1)
    values = [v, to_global(v_points).to(dtype), right]
    attended = attention(
        torch.cat(queries, -1),
        torch.cat([k.to(dtype), k_near, bias_right.to(dtype), key_bias], -1),
        torch.cat(values, -1),
    )
    scalars, points, gathered = attended.split([part.shape[-1] for part in values], dim=-1)

    present = node_mask[..., None, None]
    points = points.to(placed.dtype).unflatten(-1, (-1, 3))
    points = frame.apply_inverse(near, points.flatten(2, 3)).unflatten(2, (num_heads, -1)) * present[..., None]
    pair_values = (value_left.to(dtype)[:, :, None] * gathered.unflatten(-1, (rank, pair_width))).sum(-2)
    return scalars * present.to(dtype), points, pair_values * present.to(dtype)


def width_of(columns: int) -> int:
    """The next width that fused kernels take."""
    return -(-columns // MULTIPLE) * MULTIPLE


def _precise(left: Tensor, right: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Columns in `dtype` whose dot product is that of the given ones: in half precision each number is the sum of two,
    and of the four products the smallest is left out."""
    if left.dtype == dtype:
        return left, right
    (a, a_rest), (b, b_rest) = ((x.to(dtype), (x - x.to(dtype)).to(dtype)) for x in (left, right))
    return torch.cat([a, a, a_rest], -1), torch.cat([b, b_rest, b], -1)


def _attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Zeros make all widths equal: with unequal ones torch writes the N x N weights out on a CPU."""
    width = width_of(max(queries.shape[-1], values.shape[-1]))
    padded = [F.pad(x, (0, width - x.shape[-1])).transpose(1, 2) for x in (queries, keys, values)]
    return fused_attention(*padded, scale=1.0).transpose(1, 2)[..., : values.shape[-1]]
