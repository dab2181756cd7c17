"""Sinusoidal embeddings and distograms, as Multiflow defines them."""

import math

import torch
from torch import Tensor

TIME_SCALE = 2056.0
"""Times in [0, 1] are stretched by this before embedding; also the longest period of the time embedding."""


def index_embedding(index: Tensor, width: int, max_len: int) -> Tensor:
    """Sines, then cosines of index * pi / max_len^(2 i / width), i < width / 2. [...] -> [..., width]."""
    frequency = math.pi / max_len ** (torch.arange(width // 2, device=index.device, dtype=torch.float32) * (2 / width))
    angle = index[..., None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sines, then cosines of t at geometrically spaced frequencies (Vaswani et al. 2017). [B, 1] -> [B, width]."""
    half = width // 2
    frequency = torch.exp(
        torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(TIME_SCALE) / (half - 1))
    )
    angle = TIME_SCALE * t.float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def distogram(positions: Tensor, num_bins: int, shortest: float = 1e-3, longest: float = 20.0) -> Tensor:
    """One-hot of pair distances, [B, N, 3] -> [B, N, N, num_bins] float; bins are open intervals, the last has no end.

    A distance under the first edge is in no bin, so all-zero positions (no self-conditioning) give zeros.
    """
    distance = (positions[:, :, None] - positions[:, None]).norm(dim=-1, keepdim=True)
    lower = torch.linspace(shortest, longest, num_bins, device=positions.device)
    upper = torch.cat([lower[1:], lower.new_tensor([torch.inf])])
    return ((distance > lower) & (distance < upper)).to(positions.dtype)
