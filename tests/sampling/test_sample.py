"""The sampling loop: what the model is shown, what is kept, what a design depends on, what is refused."""

import dataclasses

import pytest
import torch

from app.chem import atoms
from app.chem.residues import MASK_TOKEN
from app.errors import UserError
from app.geometry import rotations
from app.sampling import SAMPLERS, SamplerSettings, sample
from app.types import NoisyBatch, Prediction
from tests.factories import protein_batch, random_rotations, tiny_model

MENDED, LEGACY = SAMPLERS["euler"], SAMPLERS["multiflow_legacy"]
QUIET = MENDED.model_copy(update={"token_noise": 0.0})
PLAIN = MENDED.model_copy(update={"token_step": "plain", "token_noise": 2.0, "token_temperature": 1.0})
UNIFORM = PLAIN.model_copy(update={"tokens": "uniform"})
EVERY = {"euler": MENDED, "multiflow_legacy": LEGACY, "plain": PLAIN, "uniform": UNIFORM}
STEPS = 16  # with fewer, Multiflow's rotations overshoot their aim, and rounding grows from step to step
TASKS = ("unconditional", "forward_folding", "inverse_folding")

every_sampler = pytest.mark.parametrize("sampler", EVERY.values(), ids=EVERY)
every_task = pytest.mark.parametrize("task", TASKS)


class Recorder:
    """A model that keeps what it was shown. It pulls frames towards the origin and is sure of no residue type."""

    def __init__(self):
        self.seen: list[NoisyBatch] = []
        self.said: list[Prediction] = []

    def __call__(self, batch: NoisyBatch) -> Prediction:
        self.seen.append(batch.map(torch.clone))
        source = torch.Generator().manual_seed(len(self.seen))
        logits = torch.randn(*batch.res_mask.shape, 21, generator=source)
        turn = rotations.exp(0.1 * torch.randn(*batch.res_mask.shape, 3, generator=source))
        said = Prediction(batch.trans_t * 0.5, batch.rotmats_t @ turn, logits, logits[..., :20].argmax(-1))
        self.said.append(said)
        return said


def given(task: str, size: int = 2, length: int = 9) -> dict[str, torch.Tensor]:
    clean = protein_batch(size, length)
    if task == "forward_folding":
        return {"aatypes_1": clean.aatypes_1}
    if task == "inverse_folding":
        return {"trans_1": clean.trans_1, "rotmats_1": clean.rotmats_1}
    return {"lengths": [length] * size}


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


# What the model is shown


def test_the_mended_sampler_shows_what_training_showed():
    model = Recorder()
    path = sample(model, steps=5, lengths=[9, 9])
    expected = torch.linspace(0.01, 1, 5)
    for call, batch in enumerate(model.seen):
        for t in (batch.so3_t, batch.r3_t, batch.cat_t):
            torch.testing.assert_close(t, expected[call].expand(2, 1))
        assert batch.res_idx.tolist() == [list(range(1, 10))] * 2
        assert torch.equal(batch.aatypes_t, path.path_aatypes[:, call])  # the last call's are fresh, too
    assert (model.seen[0].trans_sc == 0).all()
    assert (model.seen[0].aatypes_sc == 0).all()
    for batch, said in zip(model.seen[1:], model.said, strict=False):
        assert torch.equal(batch.trans_sc, said.pred_trans)
        assert torch.equal(batch.aatypes_sc, said.pred_logits)


def test_the_mended_sampler_returns_the_tokens_it_drew():
    model = Recorder()
    path = sample(model, steps=5, sampler=QUIET, lengths=[9, 9])
    assert torch.equal(path.final_aatypes, path.path_aatypes[:, -2])  # without noise none is masked after the last step
    assert not torch.equal(path.final_aatypes, model.said[-1].pred_aatypes)
    noisy = sample(model := Recorder(), steps=5, sampler=MENDED, lengths=[30])
    masked = noisy.path_aatypes[:, -2] == MASK_TOKEN
    assert masked.any()
    assert torch.equal(noisy.final_aatypes[masked], model.said[-1].pred_aatypes[masked])
    assert torch.equal(noisy.final_aatypes[~masked], noisy.path_aatypes[:, -2][~masked])


def test_the_legacy_sampler_has_multiflows_quirks():
    model = Recorder()
    path = sample(model, steps=5, sampler="multiflow_legacy", lengths=[9, 9])
    times = torch.linspace(0.01, 1, 5)
    for call, batch in enumerate(model.seen[:-1]):
        torch.testing.assert_close(batch.r3_t, times[call].expand(2, 1))
        assert torch.equal(batch.aatypes_t, path.path_aatypes[:, call])
        assert batch.res_idx.tolist() == [list(range(9))] * 2
    last, before = model.seen[-1], model.seen[-2]  # stale tokens and times, new frames and self-conditioning
    assert torch.equal(last.aatypes_t, before.aatypes_t)
    for name in ("so3_t", "r3_t", "cat_t"):
        assert torch.equal(getattr(last, name), getattr(before, name))
    assert torch.equal(last.trans_t, path.path_trans[:, -2])
    assert torch.equal(last.trans_sc, model.said[-2].pred_trans)
    assert torch.equal(path.final_aatypes, model.said[-1].pred_aatypes)


def test_legacy_forward_folding_conditions_on_the_sequence_and_the_mended_one_on_logits():
    inputs = given("forward_folding")
    for sampler in (LEGACY, MENDED):
        model = Recorder()
        sample(model, task="forward_folding", steps=4, sampler=sampler, **inputs)
        one_hot = torch.nn.functional.one_hot(inputs["aatypes_1"], 21).float()
        for batch, said in zip(model.seen[1:], model.said, strict=False):
            assert torch.equal(batch.aatypes_sc, one_hot if sampler is LEGACY else said.pred_logits)


@every_sampler
def test_half_turns_are_made_in_the_samplers_sense(sampler):
    turned = rotations.exp(torch.tensor([-(torch.pi - 0.005), 0.0, 0.0])).expand(1, 3, 3, 3)
    aim = Prediction(torch.zeros(1, 3, 3), turned, torch.zeros(1, 3, 21), torch.zeros(1, 3, dtype=torch.int64))
    start = rotations.identity(1, 3)
    path = sample(lambda batch: aim, steps=21, sampler=sampler, rotmats_0=start)
    first = rotations.log(path.path_rotmats[0, 1])
    assert (first[:, 0] > 0 if sampler.half_turn == "positive" else first[:, 0] < 0).all()


def test_chains_and_residue_indices_are_passed_on():
    chains, residues = torch.tensor([[1, 1, 1, 2, 2]]), torch.tensor([[1, 2, 5, 1, 2]])
    model = Recorder()
    path = sample(model, steps=2, chain_idx=chains, res_idx=residues)
    assert torch.equal(model.seen[0].chain_idx, chains)
    assert torch.equal(model.seen[0].res_idx, residues)
    assert path.peptide_bond.tolist() == [[True, False, False, True, False]]
    model = Recorder()
    sample(model, steps=2, sampler="multiflow_legacy", chain_idx=chains, res_idx=residues)
    assert model.seen[0].res_idx.tolist() == [[0, 1, 2, 3, 4]]


# What a design depends on


@every_task
@every_sampler
def test_a_design_depends_neither_on_batch_mates_nor_on_padding(task, sampler):
    model, lengths, seeds = tiny_model(), [7, 12, 9], [11, 12, 13]
    clean = protein_batch(3, 12)
    names = {"unconditional": (), "forward_folding": ("aatypes_1",), "inverse_folding": ("trans_1", "rotmats_1")}[task]
    whole = {name: getattr(clean, name) for name in names}
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
    model, inputs = tiny_model(scale=0.2), given("forward_folding")
    noise = {"trans_0": 10 * torch.randn(2, 9, 3), "rotmats_0": random_rotations(2, 9)}
    turn, shift = random_rotations(1, seed=8)[0], torch.tensor([10.0, -20.0, 5.0])
    there = {"trans_0": noise["trans_0"] @ turn.mT + shift, "rotmats_0": turn @ noise["rotmats_0"]}
    before, after = (
        sample(model, task="forward_folding", steps=STEPS, sampler=sampler, **inputs, **start)
        for start in (noise, there)
    )
    torch.testing.assert_close(after.path_trans, before.path_trans @ turn.mT + shift, atol=1e-2, rtol=0)
    torch.testing.assert_close(after.path_rotmats, turn @ before.path_rotmats, atol=1e-3, rtol=0)


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
