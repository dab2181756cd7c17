"""Sinusoidal embeddings of indices and times, as Multiflow defines them."""

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
    """Sines, then cosines of t at geometrically spaced frequencies (Vaswani et al. 2017). [..., 1] -> [..., width]."""
    half = width // 2
    frequency = torch.exp(
        torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(TIME_SCALE) / (half - 1))
    )
    angle = TIME_SCALE * t.float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
