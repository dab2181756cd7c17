"""Rotations: IGSO(3) noise around the true rotation in training, uniform noise in sampling, geodesic paths."""

from torch import Tensor

from app.geometry import rotations

EXPONENTIAL_RATE = 10.0


def interpolate(t: Tensor, noise: Tensor, data: Tensor, half_turn: str = "exact") -> Tensor:
    """Point at time t [B, 1] of the geodesic from noise (t = 0) to data (t = 1), [B, N, 3, 3]."""
    return rotations.geodesic(t, noise, data, half_turn)


def share(step: float, t: float, schedule: str = "linear", rate: float = EXPONENTIAL_RATE) -> float:
    """Share of the way left to the estimate that one Euler step covers; may exceed 1.

    schedule: "linear", the speed the model was trained at, 1 / (1 - t); "exponential", Multiflow's sampling with the
    constant speed `rate`, which settles rotations early.
    """
    return step * (rate if schedule == "exponential" else 1 / (1 - t))


def euler_step(share: float | Tensor, current: Tensor, estimate: Tensor, half_turn: str = "exact") -> Tensor:
    """The point that share of the way along the geodesic from `current` to `estimate`, [B, N, 3, 3]."""
    step = rotations.exp(share * rotations.rotation_vector_field(current, estimate, half_turn))
    return rotations.product(current, step)
