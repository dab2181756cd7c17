"""The sampling loop: its course, and what a design depends on."""

import pytest
import torch

from app.chem import atoms
from app.chem.residues import MASK_TOKEN
from app.errors import UserError
from app.geometry import rotations
from app.sampling import sample
from app.types import Prediction
from tests.factories import protein_batch, random_rotations, tiny_model
from tests.sampling.recorder import EVERY, STEPS, UNIFORM, Recorder, every_sampler, every_task, given

# The run


@every_task
@every_sampler
def test_steps_are_model_calls_and_the_trajectory_holds_them_all(task, sampler):
    model, calls = Recorder(), []
    path = sample(model, task=task, steps=5, sampler=sampler, on_step=calls.append, **given(task))
    assert len(model.seen) == 5
    assert calls == [1, 2, 3, 4, 5]
    assert path.path_atom37.shape == (2, 6, 9, 37, 3)
    assert path.clean_atom37.shape == (2, 5, 9, 37, 3)
    assert path.path_aatypes.shape == (2, 6, 9)
    assert path.clean_aatypes.shape == (2, 5, 9)
    torch.testing.assert_close(path.path_atom37[:, -1], path.clean_atom37[:, -1])
    assert torch.equal(path.path_aatypes[:, -1], path.clean_aatypes[:, -1])
    torch.testing.assert_close(path.path_atom37[:, -1], path.final_atom37)
    assert torch.equal(path.path_aatypes[:, -1], path.final_aatypes)
    for call, batch in enumerate(model.seen):
        assert torch.equal(batch.trans_t, path.path_trans[:, call])
        assert torch.equal(batch.rotmats_t, path.path_rotmats[:, call])
    for call, said in enumerate(model.said[:-1]):
        assert torch.equal(said.pred_trans, path.clean_trans[:, call])
        assert torch.equal(said.pred_aatypes, path.clean_aatypes[:, call])


@every_task
def test_without_a_path_only_the_last_points_are_kept(task):
    model = tiny_model()
    whole, last = (sample(model, task=task, steps=4, keep_path=keep, **given(task)) for keep in (True, False))
    assert last.path_trans.shape[1] == last.clean_trans.shape[1] == 1
    torch.testing.assert_close(last.final_atom37, whole.final_atom37)
    assert torch.equal(last.final_aatypes, whole.final_aatypes)


def test_frames_and_tokens_of_a_sure_model_are_reached():
    clean = protein_batch(2, 9)
    logits = 100.0 * torch.nn.functional.one_hot(clean.aatypes_1, 21)
    truth = Prediction(clean.trans_1, clean.rotmats_1, logits, clean.aatypes_1)
    for sampler in EVERY.values():
        path = sample(lambda batch: truth, steps=20, sampler=sampler, lengths=[9, 9])  # noise and all
        assert torch.equal(path.final_aatypes, clean.aatypes_1)
        torch.testing.assert_close(path.path_trans[:, -1], clean.trans_1)
        torch.testing.assert_close(path.path_trans[:, -2], clean.trans_1, atol=1e-4, rtol=0)
    path = sample(lambda batch: truth, steps=20, lengths=[9, 9])
    torch.testing.assert_close(path.path_rotmats[:, -2], clean.rotmats_1, atol=1e-5, rtol=0)


def test_a_mended_path_is_straight_at_constant_speed():
    clean = protein_batch(2, 9)
    truth = Prediction(clean.trans_1, clean.rotmats_1, torch.zeros(2, 9, 21), clean.aatypes_1)
    path = sample(lambda batch: truth, steps=6, lengths=[9, 9])
    times = torch.linspace(0.01, 1, 6)
    start = path.path_rotmats[:, 0]
    for index, t in enumerate(times):
        share = (t - 0.01) / 0.99
        torch.testing.assert_close(
            path.path_trans[:, index], torch.lerp(path.path_trans[:, 0], clean.trans_1, share), atol=1e-4, rtol=0
        )
        expected = rotations.geodesic(share, start, clean.rotmats_1)
        torch.testing.assert_close(path.path_rotmats[:, index], expected, atol=1e-4, rtol=0)


@every_task
@every_sampler
def test_the_mask_token_is_never_left(task, sampler):
    def sure_of_the_mask(batch):
        logits = torch.zeros(*batch.res_mask.shape, 21)
        logits[..., MASK_TOKEN] = 100
        return Prediction(batch.trans_t, batch.rotmats_t, logits, logits[..., :20].argmax(-1))

    noisy = sampler.model_copy(update={"token_noise": 50.0})
    path = sample(sure_of_the_mask, task=task, steps=6, sampler=noisy, **given(task))
    assert (path.final_aatypes < 20).all()
    assert (path.clean_aatypes < 20).all()


def test_starting_noise_is_centred_uniform_and_masked():
    path = sample(Recorder(), steps=2, lengths=[50] * 40)
    trans, rotmats = path.path_trans[:, 0], path.path_rotmats[:, 0]
    assert trans.mean(1).abs().max() < 1e-4
    assert trans.std() == pytest.approx(10 * (49 / 50) ** 0.5, rel=0.02)
    torch.testing.assert_close(rotmats.mean((0, 1)), torch.zeros(3, 3), atol=0.05, rtol=0)
    assert (path.path_aatypes[:, 0] == MASK_TOKEN).all()
    assert (sample(Recorder(), steps=2, sampler=UNIFORM, lengths=[50]).path_aatypes[:, 0] < 20).all()


# What a design depends on


@every_task
@every_sampler
def test_a_design_depends_neither_on_batch_mates_nor_on_padding(task, sampler):
    model, lengths, seeds = tiny_model(), [7, 12, 9], [11, 12, 13]
    whole = {name: value for name, value in given(task, 3, 12).items() if name != "lengths"}
    together = sample(model, task=task, steps=STEPS, sampler=sampler, seed=seeds, lengths=lengths, **whole)
    for index, length in enumerate(lengths):
        one = {name: value[[index], :length] for name, value in whole.items()}
        alone = sample(model, task=task, steps=STEPS, sampler=sampler, seed=[seeds[index]], lengths=[length], **one)
        assert torch.equal(together.path_aatypes[[index], :, :length], alone.path_aatypes)
        torch.testing.assert_close(
            together.path_atom37[[index], :, : length - 1], alone.path_atom37[:, :, :-1], atol=1e-3, rtol=0
        )
        torch.testing.assert_close(together.final_atom37[[index], :length], alone.final_atom37, atol=1e-3, rtol=0)
        assert (together.final_atom37[index, length:] == 0).all()


def test_seeds_settle_the_result_and_nothing_else_does():
    model, state = tiny_model(), torch.get_rng_state()
    first = sample(model, steps=4, lengths=[9, 9], seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(999)
    again = sample(model, steps=4, lengths=[9, 9], seed=3)
    assert torch.equal(first.final_atom37, again.final_atom37)
    assert torch.equal(first.path_aatypes, again.path_aatypes)
    assert not torch.allclose(first.path_trans[0], first.path_trans[1])
    counted = sample(model, steps=4, lengths=[9, 9], seed=[4, 3])
    torch.testing.assert_close(counted.path_trans.flip(0), first.path_trans, atol=1e-4, rtol=0)


@every_sampler
def test_folding_turns_with_its_noise(sampler):
    model, inputs = tiny_model(), given("forward_folding")
    noise = {"trans_0": 10 * torch.randn(2, 9, 3), "rotmats_0": random_rotations(2, 9)}
    turn, shift = random_rotations(1, seed=8)[0], torch.tensor([10.0, -20.0, 5.0])
    there = {"trans_0": noise["trans_0"] @ turn.mT + shift, "rotmats_0": turn @ noise["rotmats_0"]}
    before, after = (
        sample(model, task="forward_folding", steps=STEPS, sampler=sampler, **inputs, **start)
        for start in (noise, there)
    )
    torch.testing.assert_close(after.path_trans, before.path_trans @ turn.mT + shift, atol=1e-3, rtol=0)
    torch.testing.assert_close(after.path_rotmats, turn @ before.path_rotmats, atol=1e-4, rtol=0)


@every_sampler
def test_inverse_folding_does_not_see_where_the_protein_lies(sampler):
    model, inputs = tiny_model(scale=0.3), given("inverse_folding")
    turn, shift = random_rotations(1, seed=8)[0], torch.tensor([10.0, -20.0, 5.0])
    there = {"trans_1": inputs["trans_1"] @ turn.mT + shift, "rotmats_1": turn @ inputs["rotmats_1"]}
    before, after = (
        sample(model, task="inverse_folding", steps=8, sampler=sampler, seed=2, **x) for x in (inputs, there)
    )
    assert torch.equal(after.final_aatypes, before.final_aatypes)


def test_no_gradient_is_kept_and_frames_stay_float32_under_autocast():
    model = tiny_model()
    with torch.autocast("cpu", torch.bfloat16):
        path = sample(model, steps=4, lengths=[9])
    assert path.path_trans.dtype == path.path_rotmats.dtype == torch.float32
    assert not path.path_trans.requires_grad
    eye = torch.eye(3).expand_as(path.path_rotmats)
    torch.testing.assert_close(path.path_rotmats.mT @ path.path_rotmats, eye, atol=1e-5, rtol=0)


def test_a_model_of_twenty_tokens_samples():
    uniform = UNIFORM.model_copy(update={"token_noise": 0.5})
    path = sample(tiny_model(num_tokens=20), steps=4, sampler=uniform, lengths=[9])
    assert (path.final_aatypes < 20).all()


# Atoms


def test_designs_have_backbone_and_cb_and_nothing_on_padding():
    path = sample(tiny_model(), steps=3, lengths=[9, 6])
    placed = path.final_atom37.norm(dim=-1) > 0
    backbone = [atoms.N, atoms.CA, atoms.C, atoms.CB, atoms.O]
    assert placed[0, :, backbone].all()
    assert placed[1, :6, backbone].all()
    assert not placed[1, 6:].any()
    assert placed.sum() == 15 * 5


@pytest.mark.parametrize("sampler", ["euler", "multiflow_legacy"])
def test_a_model_of_structure_only_lets_tokens_pass(sampler):
    model, given = tiny_model(head={"kind": "none"}), torch.arange(9)[None]
    folded = sample(model, task="forward_folding", steps=4, sampler=sampler, aatypes_1=given)
    assert (folded.final_aatypes == given).all()
    free = sample(model, task="unconditional", steps=4, sampler=sampler, lengths=[9])
    assert (free.final_aatypes == MASK_TOKEN).all()
    frames = {"trans_1": torch.randn(1, 9, 3), "rotmats_1": random_rotations(1, 9)}
    with pytest.raises(UserError, match="task=inverse_folding: the model has no sequence head"):
        sample(model, task="inverse_folding", steps=4, sampler=sampler, **frames)
