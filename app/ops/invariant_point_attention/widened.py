"""Points joined to the scalars: |q - k|^2 = |q|^2 - 2 q k + |k|^2, so wider queries, keys and values hold all of it.

What is left between `widen` and `narrow` is attention with one bias a key and one from the edges, which `expanded.py`
and `fused.py` do each in their own way.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from app.geometry import frames as frame
from app.types import Frames


class Widened(NamedTuple):
    """In the points' dtype, coordinates global. W = C + 3 P, V = C + 3 Pv."""

    queries: Tensor  # [B, H, N, W], scaled
    keys: Tensor  # [B, H, N, W]
    values: Tensor  # [B, H, N, V]
    query_bias: Tensor  # [B, H, N], the same for all keys: softmax cancels it
    key_bias: Tensor  # [B, H, N]


def widen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_points: Tensor,
    k_points: Tensor,
    v_points: Tensor,
    point_weight: Tensor,
    frames: Frames,
) -> Widened:
    """Arguments as in `reference.py`. The frames should be centred: expanded squares of far points have no digits."""
    width, counts = q.shape[-1], [points.shape[3] for points in (q_points, k_points, v_points)]
    local = torch.cat([q_points, k_points, v_points], dim=3)
    placed = frame.apply(frames, local.flatten(2, 3)).unflatten(2, local.shape[2:4]).transpose(1, 2)
    q_points, k_points, v_points = (part.flatten(-2) for part in placed.split(counts, dim=3))
    q, k, v = (x.transpose(1, 2).to(placed.dtype) for x in (q, k, v))

    # 9/2 is the variance of one squared point distance, 3 the number of terms in the sum (supplement of AlphaFold 2).
    weight = (point_weight.to(placed.dtype) * (3 * counts[0] * 4.5) ** -0.5)[:, None]
    return Widened(
        queries=torch.cat([q * (3 * width) ** -0.5, weight[..., None] * q_points], dim=-1),
        keys=torch.cat([k, k_points], dim=-1),
        values=torch.cat([v, v_points], dim=-1),
        query_bias=-0.5 * weight * q_points.square().sum(-1),
        key_bias=-0.5 * weight * k_points.square().sum(-1),
    )


def key_bias(wide: Widened, bias_bias: Tensor) -> Tensor:
    """[B, H, N]. Softmax cancels `bias_bias` [H], the same for all keys; its gradient, zero, is there and exact."""
    return wide.key_bias + 0.0 * bias_bias.to(wide.key_bias.dtype)[:, None]


def narrow(
    values: Tensor,
    edges: Tensor,
    width: int,
    down_weight: Tensor,
    down_bias: Tensor,
    frames: Frames,
    node_mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs of `reference.py` from what each head gathered, zero in rows of absent residues.

    values: [B, H, N, V], the first `width` of them scalars. edges: [B, H, N, c_z]; narrowed after they were gathered,
    which is the same as before, since weights sum to 1, and makes no tensor of N x N x c_d.
    """
    values, edges = (x.transpose(1, 2) for x in (values, edges))  # [B, N, H, ...]
    scalars, points = values.tensor_split([width], dim=-1)
    points = points.unflatten(-1, (-1, 3))
    points = frame.apply_inverse(frames, points.flatten(2, 3)).unflatten(2, points.shape[2:4])
    pair_values = F.linear(edges.to(values.dtype), down_weight.to(values.dtype), down_bias.to(values.dtype))
    present = node_mask[..., None, None]
    return scalars * present, points * present[..., None], pair_values * present
