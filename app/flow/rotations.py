"""Rotations: IGSO(3) noise around the true rotation in training, uniform noise in sampling, geodesic paths."""

from torch import Tensor

from app.geometry import rotations

EXPONENTIAL_RATE = 10.0


def interpolate(t: Tensor, noise: Tensor, data: Tensor, half_turn: str = "exact") -> Tensor:
    """Point at time t [B, 1] of the geodesic from noise (t = 0) to data (t = 1), [B, N, 3, 3]."""
    return rotations.geodesic(t, noise, data, half_turn)


def euler_step(
    step: float,
    t: float,
    current: Tensor,
    estimate: Tensor,
    *,
    schedule: str = "linear",
    rate: float = EXPONENTIAL_RATE,
    half_turn: str = "exact",
) -> Tensor:
    """One step along the geodesic towards the estimate, [B, N, 3, 3].

    schedule: "linear", the speed the model was trained at, 1 / (1 - t); "exponential", Multiflow's sampling with the
    constant speed `rate`, which settles rotations early.
    """
    fraction = step * (rate if schedule == "exponential" else 1 / (1 - t))
    return rotations.geodesic(current.new_tensor(fraction), current, estimate, half_turn)
