"""Invariant point attention whose pair representation is a sum of products, with every intermediate written out."""

import torch
from torch import Tensor

from app.geometry import frames as frame
from app.types import Frames

ABSENT = -1e9
"""Added to the logits of absent keys; finite, so that rows without any key are no NaN."""


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
    """Invariant point attention (AlphaFold 2, algorithm 22) with a pair representation of low rank (Liu et al. 2025).

    q, k, v: [B, N, H, C]. q_points, k_points: [B, N, H, P, 3] and v_points: [B, N, H, Pv, 3] in local coordinates, in
    the frames' unit. Factors of rank R: bias_left, bias_right: [B, N, H, R], whose product summed over R is the pair
    bias, and value_left, value_right: [B, N, R, D], whose product by channel, summed over R, is the pair value.
    point_weight: [H], positive weight of the squared distances, as for `invariant_point_attention`. frames: [B, N].
    node_mask: [B, N], 1 = present. Points, frames and masks are float32, whatever the rest is.
    Returns scalars [B, N, H, C] and pair values [B, N, H, D] in v's dtype, points [B, N, H, Pv, 3] in local
    coordinates; all are 0, and with them all gradients, in rows of absent residues.
    """
    width, num_points, dtype = q.shape[-1], q_points.shape[-2], v.dtype
    given = q, k, v, bias_left, bias_right, value_left, value_right, point_weight
    q, k, v, bias_left, bias_right, value_left, value_right, point_weight = (x.to(q_points.dtype) for x in given)
    frames = frame.centred(frames, node_mask)  # nothing depends on the origin, far from which float32 loses digits
    pair_bias = torch.einsum("bihr,bjhr->bhij", bias_left, bias_right)
    logits = torch.einsum("bihc,bjhc->bhij", q, k) * (3 * width) ** -0.5 + 3**-0.5 * pair_bias

    def to_global(points: Tensor) -> Tensor:
        return frame.apply(frames, points.flatten(2, 3)).unflatten(2, points.shape[2:4])

    displacement = to_global(q_points)[:, :, None] - to_global(k_points)[:, None]  # [B, N, N, H, P, 3]
    squared = displacement.square().sum((-2, -1)).permute(0, 3, 1, 2)
    logits = logits - 0.5 * (point_weight * (3 * num_points * 4.5) ** -0.5)[:, None, None] * squared
    weights = torch.softmax(logits + ABSENT * (1 - node_mask)[:, None, None], dim=-1)

    scalars = torch.einsum("bhij,bjhc->bihc", weights, v)
    points = torch.einsum("bhij,bjhpx->bihpx", weights, to_global(v_points))
    points = frame.apply_inverse(frames, points.flatten(2, 3)).unflatten(2, points.shape[2:4])
    pair = torch.einsum("bird,bjrd->bijd", value_left, value_right)
    pair_values = torch.einsum("bhij,bijd->bihd", weights, pair)
    present = node_mask[..., None, None]
    return (scalars * present).to(dtype), points * present[..., None], (pair_values * present).to(dtype)
