"""Geometric attention as published (ESM3, Hayes et al. 2024, supplement, algorithm 6), everything written out."""

import torch
from torch import Tensor

from app.types import Frames

SHORTEST = 1e-6
"""Distances below count as this: at 0 a distance has no gradient."""


def geometric_attention(
    q_rotation: Tensor,
    k_rotation: Tensor,
    q_distance: Tensor,
    k_distance: Tensor,
    v: Tensor,
    rotation_weight: Tensor,
    distance_weight: Tensor,
    frames: Frames,
    node_mask: Tensor,
) -> Tensor:
    """Attention by how directions agree and how near points are, both in global space; lines 2 to 13.

    q_rotation, k_rotation, v: [B, N, H, 3], directions, and q_distance, k_distance: [B, N, H, 3], points in the frames'
    unit, all in local coordinates. rotation_weight, distance_weight: [H], positive (after softplus). frames: [B, N].
    node_mask: [B, N], 1 = present. Returns [B, N, H, 3], local directions; 0 in rows of absent residues.
    """

    def turned(directions: Tensor) -> Tensor:
        return torch.einsum("bnxy,bnhy->bnhx", frames.rotmats, directions)

    def placed(points: Tensor) -> Tensor:
        return turned(points) + frames.trans[:, :, None]

    agreement = torch.einsum("bihx,bjhx->bhij", turned(q_rotation), turned(k_rotation)) * 3**-0.5
    displacement = placed(q_distance)[:, :, None] - placed(k_distance)[:, None]  # [B, N, N, H, 3]
    distance = displacement.square().sum(-1).clamp(min=SHORTEST**2).sqrt().permute(0, 3, 1, 2) * 3**-0.5
    logits = rotation_weight[:, None, None] * agreement - distance_weight[:, None, None] * distance
    absent = node_mask[:, None, None] == 0
    weights = torch.softmax(logits.masked_fill(absent, torch.finfo(logits.dtype).min), dim=-1)
    attended = torch.einsum("bhij,bjhx->bihx", weights, turned(v))
    return torch.einsum("bnyx,bnhy->bnhx", frames.rotmats, attended) * node_mask[..., None, None]
