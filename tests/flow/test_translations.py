"""The path, the time steps and the noise of translations; transport against all permutations."""

import itertools

import pytest
import torch
from scipy.spatial.transform import Rotation

from app.flow import translations
from tests.factories import generator

B, N = 4, 9


@pytest.fixture
def clouds():
    source = generator(3)
    mask = torch.ones(B, N)
    noise = translations.centred_noise(torch.randn(B, N, 3, generator=source), mask, 10.0)
    data = translations.centred_noise(torch.randn(B, N, 3, generator=source), mask, 5.0)
    return noise, data, mask


def superposed(noise, data):
    """Both centred, by scipy."""
    rotation, _ = Rotation.align_vectors(data.double().numpy(), noise.double().numpy())
    return torch.from_numpy(rotation.apply(noise.double().numpy()))


def costs(noise, data):
    """[noise, example] mean distance after superposition."""
    return torch.tensor([[(superposed(n, d) - d).norm(dim=-1).mean() for d in data] for n in noise])


def best(cost):
    """noise of each example in the cheapest of all permutations."""
    return min(itertools.permutations(range(B)), key=lambda noise_of: sum(cost[n, e] for e, n in enumerate(noise_of)))


def used(paired, noise, data):
    """Which noise each example got, told by its shape."""
    return tuple(
        next(n for n in range(B) if torch.allclose(superposed(noise[n], data[e]).float(), paired[e], atol=1e-3))
        for e in range(B)
    )


def three_cycle(noise, data):
    """Examples of which the best permutation is not its own inverse: the quirk shows."""
    for seed in range(100):
        mixed = data + 4 * torch.randn(data.shape, generator=generator(seed))
        mixed = mixed - mixed.mean(1, keepdim=True)
        order = best(costs(noise, mixed))
        if tuple(order[order[e]] for e in range(B)) != tuple(range(B)):
            return mixed, order
    raise AssertionError("no such example")


def test_transport_is_the_cheapest_of_all_permutations(clouds):
    noise, data, mask = clouds
    data, order = three_cycle(noise, data)
    paired = translations.pair_by_transport(noise, data, mask)
    assert used(paired, noise, data) == order


def test_the_quirk_is_the_inverse_permutation(clouds):
    noise, data, mask = clouds
    data, order = three_cycle(noise, data)
    paired = translations.pair_by_transport(noise, data, mask, inverse=True)
    assert used(paired, noise, data) == tuple(order.index(e) for e in range(B))


def test_transport_moves_noise_rigidly_and_stays_centred(clouds):
    noise, data, mask = clouds
    paired = translations.pair_by_transport(noise, data, mask)
    assert paired.mean(1).abs().max() < 1e-5
    before = sorted(torch.pdist(cloud).sum().item() for cloud in noise)
    after = sorted(torch.pdist(cloud).sum().item() for cloud in paired)
    assert after == pytest.approx(before, rel=1e-5)


def test_transport_does_not_see_padding(clouds):
    noise, data, mask = clouds
    mask[:, 6:] = 0
    short = translations.pair_by_transport(noise[:, :6], data[:, :6], mask[:, :6])
    rubbish = torch.where(mask[..., None] > 0, data, 99.0)
    torch.testing.assert_close(translations.pair_by_transport(noise, rubbish, mask)[:, :6], short)


def test_noise_has_mean_zero_and_its_scale():
    mask = torch.ones(200, 30)
    mask[:, 20:] = 0
    noise = translations.centred_noise(torch.randn(200, 30, 3, generator=generator()), mask, 10.0)
    assert noise.sum(1).abs().max() < 1e-3
    assert (noise[:, 20:] == 0).all()
    assert noise[:, :20].std().item() == pytest.approx(10 * (19 / 20) ** 0.5, rel=0.02)


def test_the_path_goes_straight_from_noise_to_data(clouds):
    noise, data, _ = clouds
    t = torch.tensor([[0.0], [0.25], [0.5], [1.0]])
    at = translations.interpolate(t, noise, data)
    torch.testing.assert_close(at[0], noise[0])
    torch.testing.assert_close(at[1], 0.75 * noise[1] + 0.25 * data[1])
    assert torch.equal(at[3], data[3])


@pytest.mark.parametrize(("t", "step"), [(0.01, 0.1), (0.5, 0.25), (0.9, 0.1)])
def test_steps_towards_the_truth_stay_on_the_path(clouds, t, step):
    noise, data, _ = clouds
    here, there = (translations.interpolate(torch.full((B, 1), at), noise, data) for at in (t, t + step))
    torch.testing.assert_close(
        translations.euler_step(translations.share(step, t), here, data), there, atol=1e-5, rtol=1e-5
    )
