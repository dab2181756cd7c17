"""Random arguments of the `flash_ipa` block's sizes, on a chain as long as a protein's and far from the origin."""

from typing import Any

import torch

from app.geometry.rotations import from_gaussian_quaternions
from app.types import Frames


def example(
    length: int,
    batch: int = 1,
    seed: int = 0,
    num_heads: int = 8,
    width: int = 16,
    num_qk_points: int = 8,
    num_v_points: int = 12,
    rank: int = 2,
    pair_width: int = 32,
) -> dict[str, Any]:
    """Float64 on the CPU, nanometre; some residues are absent, and of two examples or more all of the last one's."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(batch, length, *shape, generator=source, dtype=torch.float64)

    mask = (torch.rand(batch, length, generator=source) > 0.1).double()
    mask[:, :1] = 1
    mask[1:][-1:] = 0
    walk = normal(3, scale=0.22).cumsum(1) + torch.tensor([20.0, -30.0, 10.0], dtype=torch.float64)  # steps of 0.38 nm
    return {
        "q": normal(num_heads, width), "k": normal(num_heads, width), "v": normal(num_heads, width),
        "q_points": normal(num_heads, num_qk_points, 3, scale=0.3),
        "k_points": normal(num_heads, num_qk_points, 3, scale=0.3),
        "v_points": normal(num_heads, num_v_points, 3, scale=0.3),
        "bias_left": normal(num_heads, rank), "bias_right": normal(num_heads, rank),
        "value_left": normal(rank, pair_width), "value_right": normal(rank, pair_width),
        "point_weight": 0.5 + torch.rand(num_heads, generator=source, dtype=torch.float64),
        "frames": Frames(from_gaussian_quaternions(normal(4)), walk), "node_mask": mask,
    }  # fmt: skip
