"""The same, some queries at a time: memory goes with N, not with N^2."""

import torch
from torch import Tensor

from app.devices import full_precision
from app.geometry import frames as frame
from app.ops.geometric_attention.reference import SHORTEST
from app.ops.recompute import by_rows
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
    """Shapes and meaning as in `reference.py`; no autocast. The backward pass makes the weights of a chunk again."""
    with full_precision(v.device):
        near = frame.centred(frames, node_mask)
        rotmats, trans = near.rotmats, near.trans[:, :, None]

        def turned(directions: Tensor) -> Tensor:
            return directions @ rotmats.mT

        rotation_weight, distance_weight = (3**-0.5 * w[:, None, None] for w in (rotation_weight, distance_weight))
        keys = turned(k_rotation), turned(k_distance) + trans, turned(v)
        k_rotation, k_distance, values = (x.transpose(1, 2) for x in keys)  # [B, H, N, 3]
        absent = node_mask[:, None, None] == 0
        queries = turned(q_rotation), turned(q_distance) + trans
        attended = _attend(QUERIES, queries, [k_rotation, k_distance, values, rotation_weight, distance_weight, absent])
        return (attended @ rotmats) * node_mask[..., None, None]


@by_rows
def _attend(
    q_rotation: Tensor,
    q_distance: Tensor,
    k_rotation: Tensor,
    k_distance: Tensor,
    values: Tensor,
    rotation_weight: Tensor,
    distance_weight: Tensor,
    absent: Tensor,
) -> Tensor:
    """[B, Q, H, 3]. Distances are taken from differences: squares expanded as for a dot product lose short ones."""
    q_rotation, q_distance = q_rotation.transpose(1, 2), q_distance.transpose(1, 2)
    axes = zip(q_distance.unbind(-1), k_distance.unbind(-1), strict=True)
    squared = sum((q[..., None] - k[..., None, :]).square() for q, k in axes)
    distance = squared.clamp(min=SHORTEST**2).sqrt()
    logits = rotation_weight * (q_rotation @ k_rotation.mT) - distance_weight * distance
    weights = torch.softmax(logits.masked_fill(absent, torch.finfo(logits.dtype).min), dim=-1)
    return (weights @ values).transpose(1, 2)
