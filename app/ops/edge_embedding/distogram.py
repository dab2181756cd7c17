"""Distograms, as Multiflow defines them: bins are open intervals, and the last has no end.

A distance on a bin's edge, or under the first, is in no bin, so all-zero positions (no self-conditioning) give none.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST, LONGEST = 1e-3, 20.0
"""Where the first bin begins, and the last."""


def distances(rows: Tensor, columns: Tensor) -> Tensor:
    """[B, M, 3] and [B, N, 3] -> [B, M, N]."""
    return (rows[:, :, None] - columns[:, None]).norm(dim=-1)


def lower_edges(num_bins: int, device: torch.device) -> Tensor:
    """[num_bins]"""
    return torch.linspace(SHORTEST, LONGEST, num_bins, device=device)


def distogram(positions: Tensor, num_bins: int) -> Tensor:
    """One-hot of pair distances, [B, N, 3] -> [B, N, N, num_bins] in the positions' dtype."""
    distance = distances(positions, positions)[..., None]
    lower = lower_edges(num_bins, positions.device)
    upper = F.pad(lower[1:], (0, 1), value=torch.inf)  # made there: a number from the host would be a wait
    return ((distance > lower) & (distance < upper)).to(positions.dtype)


def bin_of(distance: Tensor, num_bins: int) -> Tensor:
    """The bin of each distance, counted from 1; 0 for none. Any shape, int64."""
    lower = lower_edges(num_bins, distance.device).to(distance.dtype)
    number = torch.bucketize(distance, lower)  # of edges below the distance
    on_edge = distance == lower[number.clamp(max=num_bins - 1)]
    return number.masked_fill(on_edge, 0)
