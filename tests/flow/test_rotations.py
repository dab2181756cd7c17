"""The path and the time steps of rotations."""

import pytest
import torch

from app.flow import rotations as path
from app.geometry import rotations
from tests.factories import random_rotations


@pytest.fixture
def ends():
    return random_rotations(2, 5, seed=1, dtype=torch.float64), random_rotations(2, 5, seed=2, dtype=torch.float64)


def test_the_path_goes_from_noise_to_data(ends):
    noise, data = ends
    t = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    at = path.interpolate(t, noise, data)
    torch.testing.assert_close(at[0], noise[0])
    torch.testing.assert_close(at[1], data[1])


@pytest.mark.parametrize(("t", "step"), [(0.01, 0.1), (0.5, 0.25), (0.9, 0.1)])
def test_linear_steps_towards_the_truth_stay_on_the_path(ends, t, step):
    noise, data = ends
    here, there = (path.interpolate(torch.full((2, 1), at, dtype=torch.float64), noise, data) for at in (t, t + step))
    torch.testing.assert_close(path.euler_step(path.share(step, t), here, data), there)


def test_exponential_steps_have_a_constant_rate_whatever_the_time(ends):
    current, estimate = ends
    expected = rotations.geodesic(torch.tensor(0.3, dtype=torch.float64), current, estimate)
    for t in (0.0, 0.5, 0.99):
        found = path.euler_step(path.share(0.05, t, "exponential", rate=6.0), current, estimate)
        torch.testing.assert_close(found, expected)


def test_steps_turn_with_the_frames(ends):
    current, estimate = ends
    turn = random_rotations(1, seed=3, dtype=torch.float64)[0]
    for schedule in ("linear", "exponential"):
        share = path.share(0.1, 0.3, schedule)
        there = path.euler_step(share, current, estimate)
        moved = path.euler_step(share, turn @ current, turn @ estimate)
        torch.testing.assert_close(moved, turn @ there)
