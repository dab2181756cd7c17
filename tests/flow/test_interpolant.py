"""Noising a batch: times, what stays, where the randomness comes from, precision."""

import dataclasses

import pytest
import torch

from app.chem.residues import MASK_TOKEN, NUM_AATYPES
from app.flow.interpolant import corrupt, draw_times
from app.flow.settings import FlowSettings
from app.geometry import rotations
from app.geometry.superpose import centre
from app.types import NoisyBatch, ProteinBatch
from tests.factories import generator, padded, protein_batch, random_rotations

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]  # a GPU where there is one
NOISY = ("trans_t", "rotmats_t", "aatypes_t", "so3_t", "r3_t", "cat_t")


def tensors(batch) -> dict[str, torch.Tensor]:
    found = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def at_time(batch: ProteinBatch, seed: int = 0, **settings) -> NoisyBatch:
    return corrupt(batch, FlowSettings(**settings), generator(seed))


# Times


def test_times_are_uniform_with_shares_of_folding():
    settings = FlowSettings(forward_folding_share=0.1, inverse_folding_share=0.2, min_t=0.01)
    structure, token = draw_times(50_000, settings, generator())
    assert structure.shape == token.shape == (50_000, 1)
    forward, inverse = token == 1, structure == 1
    assert forward.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert inverse.float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert not (forward & inverse).any()
    both = ~forward & ~inverse
    for t in (structure[both], token[both], structure[forward], token[inverse]):
        assert t.min() >= 0.01
        assert t.max() <= 0.99
        assert t.mean().item() == pytest.approx(0.5, abs=0.02)
        assert t.std().item() == pytest.approx(0.98 / 12**0.5, abs=0.02)
    pairs = torch.stack([structure[both], token[both]])
    assert torch.corrcoef(pairs)[0, 1].abs() < 0.03


def test_one_time_for_all_where_they_are_not_separate():
    structure, token = draw_times(1000, FlowSettings(separate_times=False), generator())
    assert torch.equal(structure, token)
    assert structure.max() <= 0.99


def test_the_batch_holds_the_times_it_was_noised_at():
    batch = protein_batch(64, 10)
    noisy = at_time(batch, forward_folding_share=0.3, inverse_folding_share=0.3)
    forward, inverse = (noisy.cat_t == 1)[:, 0], (noisy.r3_t == 1)[:, 0]
    assert forward.any()
    assert inverse.any()
    assert torch.equal(noisy.so3_t, noisy.r3_t)
    assert torch.equal(noisy.aatypes_t[forward], batch.aatypes_1[forward])
    assert torch.equal(noisy.trans_t[inverse], batch.trans_1[inverse])
    torch.testing.assert_close(noisy.rotmats_t[inverse], batch.rotmats_1[inverse], atol=1e-5, rtol=0)
    assert (noisy.aatypes_t[inverse] == MASK_TOKEN).any()
    assert not torch.allclose(noisy.trans_t[forward], batch.trans_1[forward])


# The paths


def test_times_that_are_given_are_those_it_is_noised_at():
    clean, times = protein_batch(), (torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]]))
    noisy = corrupt(clean, FlowSettings(), generator(), times)
    assert torch.equal(noisy.r3_t, times[0]) and torch.equal(noisy.so3_t, times[0]) and noisy.cat_t is times[1]
    torch.testing.assert_close(noisy.trans_t[1], clean.trans_1[1])
    assert torch.equal(noisy.aatypes_t[0], clean.aatypes_1[0]) and (noisy.aatypes_t[1] == MASK_TOKEN).all()


def test_translations_lie_between_centred_noise_and_data():
    batch = protein_batch(400, 20)
    noisy = at_time(batch, batch_transport=False, translation_noise=10.0)
    t = noisy.r3_t[..., None]
    free = (t < 0.9)[:, 0, 0]
    noise = ((noisy.trans_t - t * batch.trans_1) / (1 - t))[free]
    assert noise.mean(1).abs().max() < 1e-3
    assert noise.std().item() == pytest.approx(10 * (19 / 20) ** 0.5, rel=0.02)


def test_transport_brings_noise_closer_to_the_data():
    batch = protein_batch(12, 20)
    near, far = (at_time(batch, batch_transport=on, min_t=0.4999) for on in (True, False))
    assert (near.trans_t - batch.trans_1).norm(dim=-1).mean() < 0.9 * (far.trans_t - batch.trans_1).norm(dim=-1).mean()


def test_rotations_lie_on_a_geodesic_that_starts_at_igso3_noise():
    batch = protein_batch(200, 20)
    noisy = at_time(batch, igso3_sigma=0.3)
    t = noisy.so3_t
    left = rotations.rotation_vector_field(noisy.rotmats_t, batch.rotmats_1)
    start = left / (1 - t.clamp(max=0.99))[..., None]
    # The mean of the trace of IGSO(3) is 3 exp(-sigma^2).
    trace = 1 + 2 * start[(t < 0.9)[:, 0]].norm(dim=-1).cos()
    assert trace.mean().item() == pytest.approx(3 * 2.718281828 ** (-(0.3**2)), rel=0.01)


def test_extra_masks_hit_a_share_of_all_tokens():
    noisy = at_time(protein_batch(200, 20), forward_folding_share=1.0, inverse_folding_share=0.0, extra_mask_share=0.3)
    assert (noisy.aatypes_t == MASK_TOKEN).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_uniform_tokens_are_never_masked():
    noisy = at_time(protein_batch(50, 20), tokens="uniform")
    assert (noisy.aatypes_t < NUM_AATYPES).all()
    assert (noisy.aatypes_t != noisy.aatypes_1).any()


def test_a_modality_that_is_not_corrupted_stays_clean():
    batch = protein_batch(8, 12)
    noisy = at_time(batch, corrupt_translations=False, corrupt_rotations=False, corrupt_tokens=False)
    assert torch.equal(noisy.trans_t, batch.trans_1)
    assert torch.equal(noisy.rotmats_t, batch.rotmats_1)
    assert torch.equal(noisy.aatypes_t, batch.aatypes_1)


# What stays


@pytest.mark.parametrize("kind", ["masking", "uniform"])
def test_given_residues_stay_and_padding_is_clean(kind):
    batch = protein_batch(2, 12, given=4, missing=3)
    for seed in range(5):
        noisy = at_time(batch, seed, tokens=kind, extra_mask_share=0.5)
        for name in ("trans", "rotmats", "aatypes"):
            assert torch.equal(getattr(noisy, f"{name}_t")[1, :4], getattr(batch, f"{name}_1")[1, :4])
        assert (noisy.trans_t[1, -3:] == 0).all()
        assert torch.equal(noisy.rotmats_t[1, -3:], torch.eye(3).expand(3, 3, 3))
        assert torch.equal(noisy.aatypes_t[1, -3:], batch.aatypes_1[1, -3:])


def test_padding_is_cleaned_even_where_the_batch_had_rubbish_in_it():
    noisy = at_time(padded(protein_batch(3, 12), 5))
    assert (noisy.trans_t[:, 12:] == 0).all()
    assert torch.equal(noisy.rotmats_t[:, 12:], torch.eye(3).expand(3, 5, 3, 3))
    assert noisy.trans_t.isfinite().all()


def test_every_residue_of_every_length_gets_noise_of_full_width():
    """Lengths mixed in one batch: transport may hand a long chain the noise drawn for a short one."""
    size, length = 6, 30
    batch = protein_batch(size, length)
    mask = torch.arange(length) < torch.tensor([8, 30, 8, 30, 8, 30])[:, None]
    batch = dataclasses.replace(batch, res_mask=mask.float(), trans_1=centre(batch.trans_1, mask) * mask[..., None])
    spread = torch.zeros(length)
    for seed in range(30):
        noisy = at_time(batch, seed, min_t=0.01, forward_folding_share=0.0, inverse_folding_share=0.0)
        t = noisy.r3_t[..., None]
        noise = (noisy.trans_t - t * batch.trans_1) / (1 - t)
        assert ((1 - t) * noise).sum(1).abs().max() < 1e-2
        spread += noise[[1, 3, 5]].square().sum(-1).mean(0) / 30
    assert spread.min() > 0.5 * spread.max()


def test_the_clean_protein_and_the_masks_go_along_unchanged():
    batch = protein_batch(2, 12, given=2, missing=2)
    before = {name: value.clone() for name, value in tensors(batch).items()}
    noisy = at_time(batch)
    assert noisy.names == batch.names
    for name, value in before.items():
        assert torch.equal(getattr(batch, name), value), f"corrupt changed {name} in place"
        assert torch.equal(getattr(noisy, name), value)
    assert (noisy.trans_sc == 0).all()
    assert (noisy.aatypes_sc == 0).all()


# Randomness and precision


@pytest.mark.parametrize("device", DEVICES)
def test_the_generator_alone_settles_the_noise_on_any_device(device):
    batch = protein_batch(4, 12)
    state = torch.get_rng_state()
    first, second, other = at_time(batch, 1), at_time(batch.to(device), 1), at_time(batch, 2)
    assert torch.equal(torch.get_rng_state(), state)
    for name in NOISY:
        found = getattr(second, name)
        assert found.device.type == device
        torch.testing.assert_close(found.cpu(), getattr(first, name), atol=0 if device == "cpu" else 1e-5, rtol=0)
        assert not torch.equal(getattr(other, name), getattr(first, name))


@pytest.mark.parametrize("transport", [True, False])
def test_noise_keeps_full_precision_under_autocast(transport):
    """Lightning's bf16-mixed wraps the whole training step, the noising included."""
    batch = protein_batch(4, 12, given=2, missing=2)
    expected = at_time(batch, batch_transport=transport)
    with torch.autocast("cpu", torch.bfloat16):
        found = at_time(batch, batch_transport=transport)
    for name in NOISY:
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=0, rtol=0)


def test_noisy_rotations_are_rotations():
    batch = dataclasses.replace(protein_batch(20, 30), rotmats_1=random_rotations(20, 30))
    noisy = at_time(batch)
    torch.testing.assert_close(
        noisy.rotmats_t.mT @ noisy.rotmats_t, torch.eye(3).expand(20, 30, 3, 3), atol=1e-5, rtol=0
    )
