"""The whole model: equivariance, padding, batch mates, precision, on weights none of which is zero."""

import dataclasses

import pytest
import torch

from app.chem.residues import MASK_TOKEN
from app.model.codesign import most_likely
from tests.factories import generator, moved, noisy_batch, padded, random_rotations, results, rows, tiny_model


def close(found, expected, **tolerance):
    for name, value in results(expected).items():
        torch.testing.assert_close(results(found)[name], value, **{"atol": 1e-4, "rtol": 1e-4} | tolerance)


@pytest.mark.parametrize("seed", range(5))
def test_predictions_move_with_the_input_and_logits_do_not_change(seed):
    model, batch = tiny_model(seed, scale=0.2), noisy_batch(seed=seed)
    turn, shift = random_rotations(2, seed=seed + 7), 20 * torch.randn(2, 3, generator=generator(seed))
    before, after = model(batch), model(moved(batch, turn, shift))
    torch.testing.assert_close(after.pred_logits, before.pred_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.pred_rotmats, turn[:, None] @ before.pred_rotmats, atol=1e-4, rtol=1e-4)
    expected = before.pred_trans @ turn.mT + shift[:, None]
    torch.testing.assert_close(after.pred_trans, expected, atol=1e-3, rtol=1e-4)
    assert (before.pred_trans - batch.trans_t).abs().max() > 1  # the model does move frames


def test_mirror_images_are_told_apart():
    """Equivariance is to proper motions: a model that could not tell a protein from its mirror image would be wrong."""
    model, batch = tiny_model(scale=0.3), noisy_batch()
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    reflected = dataclasses.replace(
        batch,
        trans_t=batch.trans_t @ mirror,
        rotmats_t=mirror @ batch.rotmats_t @ mirror,
        trans_sc=batch.trans_sc @ mirror,
    )
    assert not torch.allclose(model(reflected).pred_logits, model(batch).pred_logits, atol=1e-3)


@pytest.mark.parametrize("extra", [1, 7])
def test_padding_changes_nothing(extra):
    model, batch = tiny_model(scale=0.2), noisy_batch()
    real = batch.res_mask.bool()
    short, long = model(batch), model(padded(batch, extra))
    for name, value in results(short).items():
        torch.testing.assert_close(results(long)[name][:, :12][real], value[real], atol=1e-4, rtol=1e-4)


def test_absent_residues_may_hold_anything():
    model, batch = tiny_model(scale=0.2), noisy_batch()
    absent = batch.res_mask == 0
    rubbish = dataclasses.replace(
        batch,
        trans_t=torch.where(absent[..., None], 50.0, batch.trans_t),
        trans_sc=torch.where(absent[..., None], -50.0, batch.trans_sc),
        aatypes_t=torch.where(absent, 3, batch.aatypes_t),
        aatypes_sc=torch.where(absent[..., None], 9.0, batch.aatypes_sc),
        res_idx=torch.where(absent, 1000, batch.res_idx),
        chain_idx=torch.where(absent, 9, batch.chain_idx),
    )
    for name, value in results(model(batch)).items():
        torch.testing.assert_close(results(model(rubbish))[name][~absent], value[~absent], atol=1e-4, rtol=1e-4)


def test_batch_mates_change_nothing():
    model, batch = tiny_model(scale=0.2), noisy_batch(size=4)
    together = model(batch)
    for index in range(4):
        alone = model(rows(batch, index))
        for name, value in results(alone).items():
            torch.testing.assert_close(results(together)[name][[index]], value, atol=1e-5, rtol=1e-5)


def test_the_trunk_starts_from_masked_representations_and_nanometres():
    batch = noisy_batch()
    state = tiny_model().embed(batch)
    pairs = batch.res_mask[:, :, None] * batch.res_mask[:, None]
    assert torch.equal(state.node_mask, batch.res_mask)
    assert torch.equal(state.edge_mask, pairs)
    assert torch.equal(state.frame_mask, batch.res_mask * batch.diffuse_mask)
    for value, mask in ((state.node, batch.res_mask), (state.edge, pairs)):
        assert torch.equal((value != 0).any(-1), mask.bool())
    torch.testing.assert_close(state.frames.trans, batch.trans_t / 10)
    assert torch.equal(state.t, torch.cat([batch.so3_t, batch.r3_t, batch.cat_t], -1))


def test_given_and_absent_residues_keep_their_frames():
    model, batch = tiny_model(), noisy_batch()
    prediction = model(batch)
    still = (batch.diffuse_mask * batch.res_mask) == 0
    assert still.any()
    assert torch.equal(prediction.pred_rotmats[still], batch.rotmats_t[still])
    torch.testing.assert_close(prediction.pred_trans[still], batch.trans_t[still], atol=1e-5, rtol=1e-6)
    assert (prediction.pred_trans[~still] != batch.trans_t[~still]).any(-1).all()


def test_floats_are_taken_where_integers_are_meant():
    batch = noisy_batch()
    floats = dataclasses.replace(
        batch, **{name: getattr(batch, name).float() for name in ("aatypes_t", "res_idx", "chain_idx")}
    )
    close(tiny_model()(floats), tiny_model()(batch), atol=0, rtol=0)


def test_everything_the_model_is_given_matters():
    model, batch = tiny_model(scale=0.3, node_embed={"c_position": 8, "c_time": 8, "embed_chain": True}), noisy_batch()
    before = model(batch).pred_logits
    changes = {
        "res_idx": batch.res_idx + 3,
        "chain_idx": batch.chain_idx + 1,
        "diffuse_mask": 1 - batch.diffuse_mask,
        "so3_t": batch.so3_t * 0.5,
        "r3_t": batch.r3_t * 0.5,
        "cat_t": batch.cat_t * 0.5,
        "trans_t": batch.trans_t * 1.5,
        "rotmats_t": batch.rotmats_t.mT,
        "aatypes_t": (batch.aatypes_t + 1) % 21,
        "trans_sc": batch.trans_sc * 1.5,
        "aatypes_sc": -batch.aatypes_sc,
    }
    for name, value in changes.items():
        changed = model(dataclasses.replace(batch, **{name: value})).pred_logits
        assert not torch.allclose(changed, before, atol=1e-5), name


def test_under_autocast_predictions_are_float32_and_frames_are_rotations():
    model, batch = tiny_model(), noisy_batch()
    expected = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch)
    for name, value in results(expected).items():
        assert results(found)[name].dtype == value.dtype
    eye = torch.eye(3).expand(2, 12, 3, 3)
    torch.testing.assert_close(found.pred_rotmats.mT @ found.pred_rotmats, eye, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.pred_trans, expected.pred_trans, atol=1.0, rtol=0.1)


def test_the_gradient_reaches_every_parameter():
    model, batch = tiny_model().train(), noisy_batch()
    prediction = model(batch)
    weight = torch.linspace(1, 2, 21)  # a plain sum of logits could be constant
    frames = prediction.pred_trans.square().sum() + (prediction.pred_rotmats**3).sum()
    (frames + (prediction.pred_logits * weight).sum()).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not silent
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_mask_token_is_never_the_most_likely():
    logits = torch.randn(2, 5, 21)
    logits[..., MASK_TOKEN] = 100
    assert torch.equal(most_likely(logits), logits[..., :20].argmax(-1))
    assert torch.equal(most_likely(logits[..., :20]), logits[..., :20].argmax(-1))


def test_an_empty_self_conditioning_and_coinciding_positions_are_finite():
    model, batch = tiny_model().train(), noisy_batch()
    batch = dataclasses.replace(
        batch, trans_t=0 * batch.trans_t, trans_sc=0 * batch.trans_sc, aatypes_sc=0 * batch.aatypes_sc
    )
    prediction = model(batch)
    prediction.pred_trans.sum().backward()
    assert all(value.isfinite().all() for value in results(prediction).values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
