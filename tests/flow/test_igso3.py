"""IGSO(3) against its series, its characters' moments, and its two limits."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from app.flow import igso3
from app.geometry import rotations
from tests.factories import generator


def density(angle: float, sigma: float) -> float:
    """The series as the docstring of the module writes it, term by term."""
    total = sum(
        (2 * order + 1) * math.exp(-order * (order + 1) * sigma**2 / 2) * math.sin((order + 0.5) * angle)
        for order in range(int(10 / sigma) + 3)
    )
    return (1 - math.cos(angle)) / math.pi * total / math.sin(angle / 2)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.5, 4.0])
def test_the_density_integrates_to_one_and_the_table_is_its_integral(sigma):
    angles, cumulative = igso3.angle_table(sigma)
    assert (angles[0], angles[-1]) == (0, np.pi)
    assert (cumulative[0], cumulative[-1]) == (0, 1)
    assert (np.diff(cumulative) >= 0).all()
    breaks = np.linspace(1e-9, np.pi, 9)
    masses = [integrate.quad(density, a, b, args=(sigma,))[0] for a, b in itertools.pairwise(breaks)]
    np.testing.assert_allclose(sum(masses), 1, atol=1e-6)
    np.testing.assert_allclose(np.diff(np.interp(breaks, angles, cumulative)), masses, atol=2e-5)


@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.5])
def test_sampled_angles_follow_the_series(sigma):
    angle = rotations.log(igso3.sample(sigma, (20_000,), generator())).norm(dim=-1).numpy()
    angles, cumulative = igso3.angle_table(sigma)
    assert stats.kstest(angle, lambda x: np.interp(x, angles, cumulative)).pvalue > 1e-3


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.5])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_moments_of_the_characters(sigma, order):
    """The heat kernel damps the character sin((l + 1/2) w) / sin(w / 2) to (2 l + 1) exp(-l (l + 1) sigma^2 / 2)."""
    angle = rotations.log(igso3.sample(sigma, (100_000,), generator(1)).double()).norm(dim=-1)
    character = (angle * (order + 0.5)).sin() / (angle / 2).sin()
    expected = (2 * order + 1) * math.exp(-order * (order + 1) * sigma**2 / 2)
    assert character.mean().item() == pytest.approx(expected, abs=5 * character.std().item() / 100_000**0.5)


def test_the_axis_is_uniform():
    mean = igso3.sample(0.8, (50_000,), generator()).mean(0)
    torch.testing.assert_close(mean, math.exp(-(0.8**2)) * torch.eye(3), atol=0.01, rtol=0)
    axis = torch.nn.functional.normalize(rotations.log(igso3.sample(0.8, (50_000,), generator())), dim=-1)
    torch.testing.assert_close(axis.T @ axis / 50_000, torch.eye(3) / 3, atol=0.01, rtol=0)


def test_large_sigma_is_haar():
    angles, cumulative = igso3.angle_table(8.0)
    np.testing.assert_allclose(cumulative, (angles - np.sin(angles)) / np.pi, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 0.05])
def test_small_sigma_is_a_gaussian_in_the_tangent_space(sigma):
    """The length of a three-dimensional Gaussian: Maxwell."""
    angles, cumulative = igso3.angle_table(sigma)
    np.testing.assert_allclose(cumulative, stats.maxwell.cdf(angles, scale=sigma), atol=2e-3)


def test_a_generator_settles_the_sample_and_the_global_one_is_left_alone():
    state = torch.get_rng_state()
    first, second, other = (igso3.sample(1.5, (3, 4), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == (3, 4, 3, 3)
    assert first.dtype == torch.float32
    torch.testing.assert_close(first.mT @ first, torch.eye(3).expand(3, 4, 3, 3), atol=1e-6, rtol=0)
