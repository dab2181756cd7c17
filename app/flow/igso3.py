"""The isotropic Gaussian on SO(3): heat kernel around the identity, sampled by its angle.

Density of the rotation angle (Yim et al. 2023, eq. 5, times the Haar density of the angle):
f(w) = (1 - cos w) / pi * sum_l (2 l + 1) exp(-l (l + 1) sigma^2 / 2) sin((l + 1/2) w) / sin(w / 2), w in [0, pi].
"""

import functools

import numpy as np
import torch
from torch import Tensor

from app.geometry import rotations

_GRID = 2048  # cells of the table, 0.0015 rad each: enough for sigma from 0.01 on


@functools.lru_cache(maxsize=8)
def angle_table(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Angles [G] in [0, pi] and the cumulative distribution [G] there, float64.

    Kept in memory: the series takes milliseconds for a sigma, so there is no file that could be stale or tampered with.
    """
    edges = np.linspace(0.0, np.pi, _GRID + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    # Terms fall off as exp(-l^2 sigma^2 / 2); beyond 9 / sigma they are under 1e-17.
    order = np.arange(int(9.0 / sigma) + 2, dtype=np.float64)
    weight = (2 * order + 1) * np.exp(-order * (order + 1) * sigma**2 / 2)
    series = np.sin(np.outer(middle, order + 0.5)) @ weight / np.sin(middle / 2)
    density = np.clip((1 - np.cos(middle)) * series, 0.0, None)
    cumulative = np.concatenate([[0.0], np.cumsum(density)])
    return edges, cumulative / cumulative[-1]


def sample(sigma: float, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """Rotations [*shape, 3, 3] float32 on the CPU: uniform axis, angle by inversion of the cumulative distribution."""
    angles, cumulative = angle_table(sigma)
    uniform = torch.rand(shape, generator=generator)
    axis = torch.nn.functional.normalize(torch.randn(*shape, 3, generator=generator), dim=-1)
    angle = torch.from_numpy(np.interp(uniform.numpy(), cumulative, angles).astype(np.float32))
    return rotations.exp(angle[..., None] * axis)
