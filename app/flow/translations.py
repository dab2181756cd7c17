"""Translations: centred Gaussian noise, straight paths, optimal-transport pairing within a batch. All in angstrom."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from app.geometry.superpose import centre, superpose


def centred_noise(gaussian: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Noise [B, N, 3] of mean 0 over the residues present, from standard normal numbers of that shape."""
    return centre(gaussian, mask) * scale * mask[..., None]


def pair_by_transport(noise: Tensor, data: Tensor, mask: Tensor, *, inverse: bool = False) -> Tensor:
    """Noise reassigned among the examples and rotated so that the total distance to the data is least.

    noise, data: [B, N, 3], mask: [B, N] of the data. Noise is wanted on all rows, unmasked, since it may go to any
    example. Each noise is superposed on each example, which centres it over that example's mask; the cost is the mean
    CA distance, and the assignment is optimal (minibatch optimal transport: Tong et al. 2023; with rigid alignment:
    Klein et al. 2023), found by scipy on the CPU. Returns [B, N, 3], anything finite outside the mask.
    inverse: Multiflow's quirk, example i gets the noise whose number is the example that noise i belongs to.
    """
    size, length = mask.shape
    every_noise = noise[:, None].expand(size, size, length, 3)
    every_example = data[None].expand(size, size, length, 3)
    weight = mask[None].expand(size, size, length).to(noise.dtype)
    aligned = superpose(every_noise, every_example, weight)
    distance = (aligned - every_example).norm(dim=-1)
    cost = (distance * weight).sum(-1) / weight.sum(-1).clamp(min=1)
    _, example_of_noise = linear_sum_assignment(cost.cpu().numpy())
    example_of_noise = torch.from_numpy(example_of_noise).to(noise.device)
    noise_of_example = example_of_noise if inverse else torch.argsort(example_of_noise)
    return aligned[noise_of_example, torch.arange(size, device=noise.device)]


def interpolate(t: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """Point at time t [B, 1] of the straight path from noise (t = 0) to data (t = 1), [B, N, 3]."""
    return (1 - t[..., None]) * noise + t[..., None] * data


def share(step: float, t: float) -> float:
    """Share of the way left to the estimate that one Euler step of the straight path covers."""
    return step / (1 - t)


def euler_step(share: float | Tensor, current: Tensor, estimate: Tensor) -> Tensor:
    """The point that share of the way from `current` to `estimate`, [B, N, 3]."""
    return current + share * (estimate - current)
