"""Random numbers of a design depend on its seed and length and on nothing else."""

import pytest
import torch

from app.sampling import draws
from app.sampling.draws import Draws


def mask(*lengths: int, width: int | None = None) -> torch.Tensor:
    return (torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]).float()


def three_draws(seeds, res_mask) -> list[torch.Tensor]:
    draws = Draws(seeds, res_mask)
    return [draws.normal(3), draws.uniform(), draws.uniform(4)]


def test_a_design_does_not_see_its_batch_mates_nor_padding():
    together = three_draws([5, 6, 7], mask(4, 9, 6))
    for index, (seed, length) in enumerate([(5, 4), (6, 9), (7, 6)]):
        alone = three_draws([seed], mask(length))
        wide = three_draws([seed], mask(length, width=20))
        for one, other, many in zip(alone, wide, together, strict=True):
            assert torch.equal(many[index, :length], one[0])
            assert torch.equal(other[0, :length], one[0])
            assert (many[index, length:] == 0).all()


def test_a_hole_in_the_mask_does_not_shift_the_stream():
    holed = mask(9)
    holed[0, 4] = 0
    assert torch.equal(Draws([1], holed).normal(3), Draws([1], mask(9)).normal(3))


def test_seeds_make_the_difference_and_the_global_generator_none():
    state = torch.get_rng_state()
    first, again, other = (Draws([seed], mask(9)).normal(3) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    more = Draws([1], mask(9))
    assert not torch.equal(more.uniform(), more.uniform())


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, 2**64 + 3])
def test_any_integer_is_a_seed(seed):
    assert Draws([seed], mask(3)).uniform().isfinite().all()


def test_distributions():
    draws = Draws([0], mask(20_000))
    normal, uniform = draws.normal(), draws.uniform()
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01


@pytest.mark.parametrize("width", [(), (4,)])
@pytest.mark.parametrize("ahead", [None, 1, 3])
def test_numbers_drawn_ahead_are_those_drawn_one_by_one(ahead, width):
    ahead_of_it, step_by_step = (Draws([5, 6], mask(4, 9)) for _ in range(2))
    drawn = list(ahead_of_it.uniform_ahead(7, *width, ahead=ahead))
    assert len(drawn) == 7
    for one in drawn:
        assert torch.equal(one, step_by_step.uniform(*width))


def test_drawing_ahead_takes_bounded_memory(monkeypatch):
    """And numbers are drawn when they are needed, not before."""
    monkeypatch.setattr(draws, "AHEAD", 2 * 9 * 4 * 3)
    source = Draws([5, 6], mask(4, 9))
    numbers = source.uniform_ahead(100, 4)
    first = next(numbers)
    assert first.untyped_storage().nbytes() == 4 * draws.AHEAD
    states = [generator.get_state() for generator in source.generators]
    next(numbers), next(numbers)
    assert all(torch.equal(g.get_state(), s) for g, s in zip(source.generators, states, strict=True))
    next(numbers)
    assert not any(torch.equal(g.get_state(), s) for g, s in zip(source.generators, states, strict=True))
