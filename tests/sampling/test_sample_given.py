"""What a task is given stays as it is, and what is missing or odd is refused."""

import dataclasses

import pytest
import torch

from app.chem.residues import MASK_TOKEN
from app.errors import UserError
from app.sampling import SAMPLERS, SamplerSettings, sample
from tests.factories import protein_batch, random_rotations, tiny_model
from tests.sampling.recorder import (
    LEGACY,
    MENDED,
    QUIET,
    Recorder,
    every_sampler,
    every_task,
    given,
)

# What is given


@every_sampler
def test_forward_folding_keeps_the_sequence(sampler):
    model, inputs = Recorder(), given("forward_folding")
    path = sample(model, task="forward_folding", steps=5, sampler=sampler, **inputs)
    for point in range(6):
        assert torch.equal(path.path_aatypes[:, point], inputs["aatypes_1"])
    for batch in model.seen:
        assert torch.equal(batch.aatypes_t, inputs["aatypes_1"])
        assert (batch.cat_t == sampler.fixed_t).all()
    assert not torch.allclose(path.path_trans[:, 1], path.path_trans[:, 0])


@every_sampler
def test_inverse_folding_keeps_the_frames(sampler):
    model, inputs = Recorder(), given("inverse_folding")
    path = sample(model, task="inverse_folding", steps=5, sampler=sampler, **inputs)
    for point in range(6):
        assert torch.equal(path.path_trans[:, point], inputs["trans_1"])
        assert torch.equal(path.path_rotmats[:, point], inputs["rotmats_1"])
    for batch in model.seen:
        assert torch.equal(batch.rotmats_t, inputs["rotmats_1"])
        assert (batch.r3_t == sampler.fixed_t).all()
        assert (batch.so3_t == sampler.fixed_t).all()
    for batch in model.seen[1:]:  # and conditions on the true positions, not on estimates of them
        assert torch.equal(batch.trans_sc, inputs["trans_1"])


@every_task
@every_sampler
def test_residues_that_are_not_diffused_stay_as_they_are(task, sampler):
    clean = protein_batch(2, 9)
    diffuse = torch.ones(2, 9)
    diffuse[1, 2:5] = 0
    model = Recorder()
    path = sample(
        model, task=task, steps=5, sampler=sampler, diffuse_mask=diffuse,
        trans_1=clean.trans_1, rotmats_1=clean.rotmats_1, aatypes_1=clean.aatypes_1,
    )  # fmt: skip
    for point in range(6):
        assert torch.equal(path.path_aatypes[1, point, 2:5], clean.aatypes_1[1, 2:5])
        assert torch.equal(path.path_trans[1, point, 2:5], clean.trans_1[1, 2:5])
        assert torch.equal(path.path_rotmats[1, point, 2:5], clean.rotmats_1[1, 2:5])
    for batch in model.seen:
        assert torch.equal(batch.diffuse_mask, diffuse)
    for batch in model.seen[1:]:
        assert torch.equal(batch.trans_sc[1, 2:5], clean.trans_1[1, 2:5])
        assert torch.equal(batch.aatypes_sc[1, 2:5].argmax(-1), clean.aatypes_1[1, 2:5])
        assert (batch.aatypes_sc[1, 2:5].sum(-1) == 1).all()


def test_residues_that_stay_have_to_be_given():
    clean, diffuse = protein_batch(2, 9), torch.ones(2, 9)
    diffuse[0, 3] = 0
    with pytest.raises(UserError, match=r"diffuse_mask.*aatypes_1"):
        sample(Recorder(), steps=2, diffuse_mask=diffuse, trans_1=clean.trans_1, rotmats_1=clean.rotmats_1)
    with pytest.raises(UserError, match=r"diffuse_mask.*trans_1 and rotmats_1"):
        sample(Recorder(), task="forward_folding", steps=2, diffuse_mask=diffuse, aatypes_1=clean.aatypes_1)


def test_kept_residues_of_unknown_type_do_not_take_the_places_of_masked_ones():
    clean, diffuse = protein_batch(2, 9), torch.ones(2, 9)
    diffuse[:, :4] = 0
    paths = []
    for kept in (0, MASK_TOKEN):
        arguments = {"trans_1": clean.trans_1, "rotmats_1": clean.rotmats_1, "aatypes_1": torch.full((2, 9), kept)}
        paths.append(sample(Recorder(), steps=6, sampler=QUIET, diffuse_mask=diffuse, **arguments).path_aatypes)
    assert torch.equal(paths[0][..., 4:], paths[1][..., 4:])
    assert (paths[1][..., :4] == MASK_TOKEN).all()


def test_noise_that_is_given_is_used_and_leaves_the_other_noise_as_it_was():
    free = sample(Recorder(), steps=3, lengths=[9, 9], seed=4)
    trans_0 = torch.randn(2, 9, 3)
    path = sample(Recorder(), steps=3, trans_0=trans_0, seed=4)
    assert torch.equal(path.path_trans[:, 0], trans_0)
    assert torch.equal(path.path_rotmats[:, 0], free.path_rotmats[:, 0])
    tokens = torch.full((2, 9), 3)
    path = sample(Recorder(), steps=3, rotmats_0=random_rotations(2, 9), aatypes_0=tokens, seed=4)
    assert torch.equal(path.path_rotmats[:, 0], random_rotations(2, 9))
    assert torch.equal(path.path_aatypes[:, 0], tokens)
    assert torch.equal(path.path_trans[:, 0], free.path_trans[:, 0])


def test_inputs_are_not_changed_in_place():
    inputs = given("inverse_folding") | {"aatypes_0": torch.full((2, 9), MASK_TOKEN)}
    before = {name: value.clone() for name, value in inputs.items()}
    sample(tiny_model(), task="inverse_folding", steps=3, **inputs)
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"steps": 1, "lengths": [5]}, "steps=1"),
        ({"steps": 0, "lengths": [5]}, "steps=0"),
        ({"task": "docking", "lengths": [5]}, "unconditional, forward_folding, inverse_folding"),
        ({"sampler": "heun", "lengths": [5]}, "euler, multiflow_legacy"),
        ({}, "lengths"),
        ({"lengths": [5, 0]}, "at least one residue"),
        ({"lengths": []}, "at least one residue"),
        ({"lengths": [-2]}, "at least one residue"),
        ({"lengths": [5, 5], "seed": [1]}, "1 seeds for 2 designs"),
        ({"task": "forward_folding", "lengths": [5]}, "needs aatypes_1"),
        ({"task": "inverse_folding", "trans_1": torch.zeros(1, 5, 3)}, "needs rotmats_1: give trans_1 and rotmats_1"),
        ({"trans_0": torch.zeros(1, 5, 3), "rotmats_0": torch.zeros(1, 4, 3, 3)}, "disagree on [B, N]"),
        ({"trans_0": torch.zeros(5, 3)}, "trans_0 has shape [5, 3]: wanted [B, N, 3]"),
        ({"trans_0": torch.zeros(1, 5, 2)}, "trans_0 has shape [1, 5, 2]"),
        ({"trans_0": torch.full((1, 5, 3), torch.nan)}, "trans_0 holds values that are not finite"),
        ({"task": "forward_folding", "aatypes_1": torch.full((1, 5), 21)}, "aatypes_1 holds values outside 0..20"),
        ({"task": "forward_folding", "aatypes_1": torch.full((1, 5), -1)}, "aatypes_1 holds values outside 0..20"),
        ({"aatypes_0": torch.full((1, 5), 33)}, "aatypes_0 holds values outside 0..20"),
        ({"lengths": [5], "res_mask": torch.zeros(1, 5)}, "res_mask"),
    ],
)
def test_refusals_are_one_line_and_come_before_the_first_call(arguments, says):
    model = Recorder()
    with pytest.raises(UserError) as caught:
        sample(model, **{"steps": 3} | arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not model.seen


def test_purity_needs_masking():
    with pytest.raises(ValueError, match="token_step=plain"):
        SamplerSettings(tokens="uniform")


def test_samplers_differ_in_the_quirks_only():
    assert SAMPLERS["euler"] == SamplerSettings()
    assert {f for f in SamplerSettings.model_fields if getattr(MENDED, f) != getattr(LEGACY, f)} == {
        "name", "rotation_schedule", "half_turn", "resample_unmasked", "first_residue", "fixed_t",
        "given_tokens_as_one_hot", "stale_final_call", "sequence",
    }  # fmt: skip
    assert all(settings.name == name for name, settings in SAMPLERS.items())


def test_numpy_integers_are_seeds():
    numpy = pytest.importorskip("numpy")
    first, second = (sample(Recorder(), steps=2, lengths=[5], seed=seed) for seed in (7, numpy.int64(7)))
    assert torch.equal(first.path_trans, second.path_trans)


def test_trajectories_are_dataclasses_of_cpu_tensors():
    path = sample(tiny_model(), steps=3, lengths=[5])
    for f in dataclasses.fields(path):
        assert getattr(path, f.name).device.type == "cpu"
