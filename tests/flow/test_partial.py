"""Masks for partial design in training: how many residues are given, in which pattern, and what becomes of them."""

import dataclasses

import pytest
import torch

from app.errors import UserError
from app.flow.interpolant import corrupt
from app.flow.partial import with_given_residues
from app.flow.settings import FlowSettings, PartialSettings
from app.training.held_out_losses import held_out_losses
from tests.factories import generator, protein_batch, tiny_module, tiny_recipe

ALWAYS = PartialSettings(probability=1.0)


def given(size=200, length=30, seed=0, missing=0, **settings):
    """[size, length] bool, which residues are given."""
    batch = protein_batch(size, length, missing=missing)
    masked = with_given_residues(batch, ALWAYS.model_copy(update=settings), generator(seed))
    return (masked.diffuse_mask == 0) & (masked.res_mask > 0)


def stretches(mask):
    """[size] how many runs of given residues there are."""
    padded = torch.nn.functional.pad(mask.int(), (1, 0))
    return (padded.diff(dim=-1) == 1).sum(-1)


def test_without_the_option_nothing_is_drawn_and_nothing_changes():
    batch, source = protein_batch(), generator()
    before = source.get_state()
    assert with_given_residues(batch, PartialSettings(), source) is batch
    assert source.get_state().equal(before)


def test_the_share_of_examples():
    touched = given(400, probability=0.3).any(-1).float().mean()
    assert touched == pytest.approx(0.3, abs=0.07)
    assert given().any(-1).all()


@pytest.mark.parametrize("scattered", [0.0, 1.0])
def test_the_share_of_residues(scattered):
    share = given(length=40, least=0.2, most=0.5, scattered=scattered).float().mean(-1)
    assert share.min() >= 0.2 - 1e-6 and share.max() <= 0.5 + 1e-6
    assert share.std() > 0.05
    for length in (2, 3, 5):
        number = given(length=length, least=0.0, most=1.0, scattered=scattered).sum(-1)
        assert number.min() == 1 and number.max() == length - 1  # one is given, one is designed


def test_stretches_and_scatter():
    number = stretches(given(scattered=0.0, segments=3))
    assert set(number.tolist()) == {1, 2, 3}
    assert (stretches(given(scattered=0.0, segments=1)) == 1).all()
    assert stretches(given(scattered=1.0, least=0.4, most=0.6)).float().mean() > 5


def test_every_residue_may_be_given_and_may_not():
    for scattered in (0.0, 1.0):
        often = given(1000, 12, scattered=scattered).float().mean(0)
        assert (often > 0.25).all() and (often < 0.75).all()


def test_absent_residues_are_left_alone():
    mask = given(2, 12, missing=4)
    assert not mask[1, 8:].any() and mask[1].any()


def test_single_residues_are_left_as_they_are():
    batch = dataclasses.replace(protein_batch(2, 4), res_mask=torch.tensor([[1.0, 0, 0, 0]] * 2))
    assert with_given_residues(batch, ALWAYS, generator()).diffuse_mask.equal(batch.diffuse_mask)


def test_a_seed_is_a_mask():
    assert given(8, seed=3).equal(given(8, seed=3)) and not given(8, seed=3).equal(given(8, seed=4))


def test_shares_out_of_order_are_refused():
    with pytest.raises(ValueError, match=r"most=0\.1 is below least"):
        PartialSettings(least=0.5, most=0.1)
    with pytest.raises(UserError, match=r"flow\.partial: most=0\.1 is below"):
        tiny_module(flow={"partial": {"least": 0.5, "most": 0.1}})


def test_noise_of_examples_with_given_residues_is_not_turned_towards_them():
    """As in sampling, which knows no protein to turn it to; that of the others is, as it was."""
    batch = protein_batch(2, 9)
    settings = FlowSettings(translation_noise=1e3)
    times = torch.full((2, 1), 0.01), torch.full((2, 1), 0.01)
    plain = corrupt(batch, settings, generator(), times)
    partly = dataclasses.replace(batch, diffuse_mask=batch.diffuse_mask.clone())
    partly.diffuse_mask[1, :3] = 0
    noised = corrupt(partly, settings, generator(), times)
    free = corrupt(partly, settings.model_copy(update={"batch_transport": False}), generator(), times)
    assert noised.trans_t[0].equal(plain.trans_t[0])
    assert noised.trans_t[1].equal(free.trans_t[1])
    assert noised.trans_t[1, :3].equal(batch.trans_1[1, :3])


def test_training_sees_given_residues_and_counts_the_others():
    """Losses and gradients are finite, and validation is as it was."""
    batch = protein_batch(4, 16)
    module = tiny_module(flow={"partial": {"probability": 1.0}})
    noisy = module.noisy(batch, generator(), conditioned=True)
    fixed = noisy.diffuse_mask == 0
    assert fixed.any(-1).all() and not fixed.all(-1).any()
    for now, clean in (("trans_t", "trans_1"), ("rotmats_t", "rotmats_1"), ("aatypes_t", "aatypes_1")):
        assert getattr(noisy, now)[fixed].equal(getattr(batch, clean)[fixed])
    losses = module.losses(noisy)["train_loss"]
    losses.mean().backward()
    assert losses.isfinite().all() and all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
    before, now = (held_out_losses(one, batch) for one in (tiny_module(), module))
    torch.testing.assert_close(now, before)


def test_recipes_without_it_train_as_before():
    """The default takes no number from the generator: the noise is that of `corrupt` alone."""
    batch, module = protein_batch(4, 16), tiny_module()
    assert "partial" not in tiny_recipe().get("flow", {})
    noisy = module.noisy(batch, generator(5), conditioned=False)
    assert noisy.trans_t.equal(corrupt(batch, module.recipe.flow, generator(5)).trans_t)
