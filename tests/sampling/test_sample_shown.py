"""What the model is shown on the way, quirk by quirk, and which sequence is returned."""

import torch

from app.chem.residues import MASK_TOKEN
from app.geometry import rotations
from app.sampling import sample
from app.types import Prediction
from tests.sampling.recorder import (
    LEGACY,
    MENDED,
    QUIET,
    Recorder,
    every_sampler,
    given,
)


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
