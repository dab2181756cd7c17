"""Distograms, as Multiflow defines them."""

import torch
from torch import Tensor


def distogram(positions: Tensor, num_bins: int, shortest: float = 1e-3, longest: float = 20.0) -> Tensor:
    """One-hot of pair distances, [B, N, 3] -> [B, N, N, num_bins] float; bins are open intervals, the last has no end.

    A distance under the first edge is in no bin, so all-zero positions (no self-conditioning) give zeros.
    """
    distance = (positions[:, :, None] - positions[:, None]).norm(dim=-1, keepdim=True)
    lower = torch.linspace(shortest, longest, num_bins, device=positions.device)
    upper = torch.cat([lower[1:], lower.new_tensor([torch.inf])])
    return ((distance > lower) & (distance < upper)).to(positions.dtype)
