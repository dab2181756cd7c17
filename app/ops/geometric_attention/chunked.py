"""The same, some queries at a time: memory goes with N, not with N^2."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from app.geometry import frames as frame
from app.ops.geometric_attention.reference import SHORTEST
from app.types import Frames

QUERIES = 64
"""Queries handled at once."""


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
    """Shapes and meaning as in `reference.py`. The backward pass makes the weights of each chunk again."""
    near = frame.centred(frames, node_mask)
    rotmats, trans = near.rotmats, near.trans[:, :, None]

    def turned(directions: Tensor) -> Tensor:
        return directions @ rotmats.mT

    weights = (3**-0.5 * weight[:, None, None] for weight in (rotation_weight, distance_weight))
    keys = turned(k_rotation), turned(k_distance) + trans, turned(v)
    rest = [x.transpose(1, 2) for x in keys] + [*weights, node_mask[:, None, None] == 0]
    queries = [x.transpose(1, 2).split(QUERIES, dim=2) for x in (turned(q_rotation), turned(q_distance) + trans)]
    chunks = list(zip(*queries, strict=True))
    recompute = len(chunks) > 1 and torch.is_grad_enabled()
    done = [_recomputed(*chunk, *rest) if recompute else _attend(*chunk, *rest) for chunk in chunks]
    return (torch.cat(done, dim=2).transpose(1, 2) @ rotmats) * node_mask[..., None, None]


def _recomputed(*tensors: Tensor) -> Tensor:
    return checkpoint(_attend, *tensors, use_reentrant=False, preserve_rng_state=False)


def _attend(
    q_rotation: Tensor,
    q_distance: Tensor,
    k_rotation: Tensor,
    k_distance: Tensor,
    v: Tensor,
    rotation_weight: Tensor,
    distance_weight: Tensor,
    absent: Tensor,
) -> Tensor:
    """Queries [B, H, Q, 3], keys and values [B, H, N, 3], all global; weights [H, 1, 1]; absent: [B, 1, 1, N], keys.

    Distances are taken from differences: squares expanded as for a dot product lose the short ones. [B, H, Q, 3].
    """
    axes = zip(q_distance.unbind(-1), k_distance.unbind(-1), strict=True)
    squared = sum((q[..., None] - k[..., None, :]).square() for q, k in axes)
    distance = squared.clamp(min=SHORTEST**2).sqrt()
    logits = rotation_weight * (q_rotation @ k_rotation.mT) - distance_weight * distance
    return torch.softmax(logits.masked_fill(absent, torch.finfo(logits.dtype).min), dim=-1) @ v
