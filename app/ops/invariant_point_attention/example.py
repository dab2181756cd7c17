"""Random arguments of Multiflow's published widths: 8 heads of 16, 8 and 12 points, 128 channels of edges."""

from typing import Any

import torch
import torch.nn.functional as F

from app.geometry.rotations import from_gaussian_quaternions
from app.types import Frames

_STEP = 0.38
"""Nanometre from one CA to the next."""


def example(
    length: int,
    batch: int = 1,
    seed: int = 0,
    num_heads: int = 8,
    width: int = 16,
    c_z: int = 128,
    num_qk_points: int = 8,
    num_v_points: int = 12,
    shift: float = 0.0,
) -> dict[str, Any]:
    """Float64 on the CPU; frames in nanometre along a random walk, `shift` from the origin. With three residues or more
    some of the first example are absent, and of a batch the last example is.
    """
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(shape, generator=source, dtype=torch.float64)

    rows = batch, length, num_heads
    steps = _STEP * F.normalize(normal(batch, length, 3), dim=-1)
    away = shift * torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    mask = torch.ones(batch, length, dtype=torch.float64)
    if length >= 3:
        mask[:1, -(length // 3) :] = 0
    if batch > 1:
        mask[-1] = 0
    return {
        "q": normal(*rows, width), "k": normal(*rows, width), "v": normal(*rows, width),
        "q_points": normal(*rows, num_qk_points, 3, scale=0.3), "k_points": normal(*rows, num_qk_points, 3, scale=0.3),
        "v_points": normal(*rows, num_v_points, 3),
        "edge": normal(batch, length, length, c_z),
        "bias_weight": normal(num_heads, c_z, scale=c_z**-0.5), "bias_bias": normal(num_heads),
        "down_weight": normal(c_z // 4, c_z, scale=c_z**-0.5), "down_bias": normal(c_z // 4),
        "point_weight": normal(num_heads).abs() + 0.1,
        "frames": Frames(from_gaussian_quaternions(normal(batch, length, 4)), steps.cumsum(1) + away),
        "node_mask": mask,
    }  # fmt: skip
