"""Distograms, as Multiflow defines them."""

import torch
import torch.nn.functional as F
from torch import Tensor


def distogram(positions: Tensor, num_bins: int, shortest: float = 1e-3, longest: float = 20.0) -> Tensor:
    """One-hot of pair distances, [B, N, 3] -> [B, N, N, num_bins] float; bins are open intervals, the last has no end.

    A distance under the first edge is in no bin, so all-zero positions (no self-conditioning) give zeros.
    """
    distance = (positions[:, :, None] - positions[:, None]).norm(dim=-1, keepdim=True)
    lower = torch.linspace(shortest, longest, num_bins, device=positions.device)
    upper = F.pad(lower[1:], (0, 1), value=torch.inf)  # made where it is needed: a number from the host would be a wait
    return ((distance > lower) & (distance < upper)).to(positions.dtype)
