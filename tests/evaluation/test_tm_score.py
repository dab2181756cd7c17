"""TM-scores that are known, and that the search finds what a much wider one does."""

import pytest
import torch

from app.evaluation import tm_score as module
from app.evaluation.tm_score import scale, tm_score
from app.geometry.superpose import superpose
from tests.data.made_demo import SETS
from tests.factories import generator, random_rotations


def chain(index: int) -> torch.Tensor:
    return torch.from_numpy(SETS["held_out"].protein(index).atom37[:, 1])


def score(one: torch.Tensor, other: torch.Tensor) -> float:
    return tm_score(one, other, torch.ones(len(one))).item()


def test_the_scale_is_that_of_the_paper():
    assert scale(100) == pytest.approx(1.24 * 85 ** (1 / 3) - 1.8)
    assert scale(15) == scale(3) == 0.5


def test_equal_structures_score_1_wherever_they_lie():
    for index in range(3):
        ca = chain(index)
        assert score(ca, ca) == pytest.approx(1, abs=1e-5)
        assert score(ca @ random_rotations(seed=index).T + 40, ca) == pytest.approx(1, abs=1e-4)
        assert score(ca * torch.tensor([1.0, 1, -1]), ca) < 0.7, "a mirror image is another structure"


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_part_that_is_moved_far_away_scores_nothing(share):
    """And the rest all that it can: superposing everything would spoil both."""
    ca = chain(2)
    length, moved = len(ca), int(share * len(ca))
    other = ca.clone()
    other[:moved] = other[:moved] @ random_rotations(seed=1).T + 500
    assert score(other, ca) == pytest.approx((length - moved) / length, abs=0.01)
    least_squares = superpose(other, ca, torch.ones(length)) - ca
    assert (1 / (1 + least_squares.square().sum(-1) / scale(length) ** 2)).mean() < 0.1


def test_unrelated_chains_score_little_and_noise_something_between():
    ca, noise = chain(2), torch.randn(len(chain(2)), 3, generator=generator())
    scores = [score(ca + size * noise, ca) for size in (0.2, 1.0, 3.0, 30.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.98 and scores[-1] < 0.17


def test_it_is_no_less_than_the_least_squares_superposition_gives_and_hardly_less_than_a_wider_search(monkeypatch):
    def everywhere(length):
        position = torch.arange(length)
        spans = [(first, first + size) for size in range(4, length + 1, 3) for first in range(length - size + 1)]
        return torch.stack([(position >= first) & (position < end) for first, end in spans])

    pairs = []
    for seed in range(4):
        ca = chain(seed)
        bent = ca.clone()
        middle = len(ca) // 3
        bent[middle:] = (bent[middle:] - bent[middle]) @ random_rotations(seed=seed).T + bent[middle]
        pairs.append((bent + torch.randn(ca.shape, generator=generator(seed)), ca))
    found = [score(*pair) for pair in pairs]
    for value, (one, other) in zip(found, pairs, strict=True):
        distance = (superpose(one, other, torch.ones(len(one))) - other).norm(dim=-1)
        assert value >= (1 / (1 + (distance / scale(len(one))) ** 2)).mean() - 1e-6
    monkeypatch.setattr(module, "_fragments", everywhere)
    for value, pair in zip(found, pairs, strict=True):
        assert value >= score(*pair) - 0.01


def test_only_residues_present_count_and_those_that_are_no_numbers_score_nothing():
    ca = chain(0)
    mask, other = torch.ones(len(ca)), ca.clone()
    other[:10], mask[:10] = 1e3, 0
    assert tm_score(other, ca, mask).item() == pytest.approx(1, abs=1e-5)
    other[10:20] = torch.nan
    expected = (len(ca) - 20) / (len(ca) - 10)
    assert tm_score(other, ca, mask).item() == pytest.approx(expected, abs=1e-3)
    assert tm_score(other * torch.nan, ca, mask) == 0 and tm_score(ca, ca, 0 * mask) == 0


def test_a_batch_and_the_smallest_chains():
    ca = torch.stack([chain(0)[:20], chain(1)[:20]])
    moved = torch.stack([ca[0], ca[1] + 3 * torch.randn(20, 3, generator=generator())])
    both = tm_score(moved, ca, torch.ones(2, 20))
    assert both.tolist() == pytest.approx([1, score(moved[1], ca[1])], abs=1e-5)
    for length in (1, 2, 3, 4, 5):
        assert score(chain(0)[:length] + 5, chain(0)[:length]) == pytest.approx(1, abs=1e-4)
