"""The losses against a transcription of their definition in loops and double precision, and their invariants."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from app.chem import backbone
from app.losses.codesign import losses
from app.losses.settings import LossSettings
from app.types import NoisyBatch, Prediction
from tests.factories import generator, moved, noisy_batch, padded, random_rotations, rows

NAMES = ("trans_loss", "rots_vf_loss", "aatypes_loss", "auxiliary_loss", "train_loss")
IDEAL = np.array([backbone.IDEAL_N, backbone.IDEAL_CA, backbone.IDEAL_C])


def prediction(batch: NoisyBatch, seed: int = 0, columns: int = 21, error: float = 0.3) -> Prediction:
    """Something near the truth, so that nothing is clamped."""
    source = generator(seed)
    size, length = batch.res_mask.shape
    noise = torch.randn(size, length, 3, generator=source)
    turned = Rotation.from_rotvec(error * torch.randn(size * length, 3, generator=source).numpy()).as_matrix()
    return Prediction(
        pred_trans=batch.trans_1 + error * noise,
        pred_rotmats=batch.rotmats_1 @ torch.from_numpy(turned).float().view(size, length, 3, 3),
        pred_logits=torch.randn(size, length, columns, generator=source),
        pred_aatypes=torch.zeros(size, length, dtype=torch.int64),
    )


def log(rotmat) -> np.ndarray:
    return Rotation.from_matrix(rotmat).as_rotvec()


def definition(p: Prediction, batch: NoisyBatch, s: LossSettings) -> dict[str, list[float]]:
    """Example by example, residue by residue, atom by atom."""
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    b = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    b = {name: value.double().numpy() for name, value in b.items() if isinstance(value, torch.Tensor)}
    trans, rotmats, logits = (x.double().numpy() for x in (p.pred_trans, p.pred_rotmats, p.pred_logits))
    for e in range(len(trans)):
        present = [n for n in range(trans.shape[1]) if b["res_mask"][e, n]]
        counts = [n for n in present if b["diffuse_mask"][e, n] and (b["plddt_mask"][e, n] or not s.use_plddt_mask)]
        number = max(len(counts), 1)
        r3_left, so3_left, cat_left = (1 - min(b[t][e, 0], s.max_t) for t in ("r3_t", "so3_t", "cat_t"))

        total = 0.0
        for n in counts:
            for axis in range(3):
                total += ((b["trans_1"][e, n, axis] - trans[e, n, axis]) * s.translation_scale / r3_left) ** 2
        trans_loss = min(s.translation_weight * total / (3 * number), s.translation_clamp)

        total = 0.0
        for n in counts:
            here = b["rotmats_t"][e, n]
            wanted, given = log(here.T @ b["rotmats_1"][e, n]), log(here.T @ rotmats[e, n])
            total += (((wanted - given) / so3_left) ** 2).sum()
        rots_loss = s.rotation_weight * total / (3 * number)

        total = 0.0
        for n in counts:
            truth, row = int(b["aatypes_1"][e, n]), logits[e, n]
            if truth >= len(row):
                continue
            log_p = row - np.log(np.exp(row).sum())
            smooth = s.token_label_smoothing
            entropy = -(1 - smooth) * log_p[truth] - smooth * log_p.mean()
            total += entropy / cat_left if s.token_likelihood_weighting else entropy
        aatypes_loss = s.token_weight * (total if s.token_sum else total / number)

        auxiliary = 0.0
        scale = s.auxiliary_scale / r3_left

        def atoms(rotation, position, n, scale=scale):
            return [scale * (rotation[n] @ local + position[n]) for local in IDEAL]

        true_atoms = [atoms(b["rotmats_1"][e], b["trans_1"][e], n) for n in range(trans.shape[1])]
        pred_atoms = [atoms(rotmats[e], trans[e], n) for n in range(trans.shape[1])]
        if s.auxiliary_atoms:
            auxiliary += sum(((true_atoms[n][a] - pred_atoms[n][a]) ** 2).sum() for n in counts for a in range(3)) / (
                3 * number
            )
        if s.auxiliary_distances:
            squares, pairs = 0.0, 0
            for n in counts:
                for m in present:
                    for a in range(3):
                        for c in range(3):
                            true = math.dist(true_atoms[n][a], true_atoms[m][c])
                            squares += (true - math.dist(pred_atoms[n][a], pred_atoms[m][c])) ** 2
                            pairs += 1
            auxiliary += squares / (pairs + 1)
        near = b["r3_t"][e, 0] > s.auxiliary_min_t and b["so3_t"][e, 0] > s.auxiliary_min_t
        auxiliary_loss = min(s.auxiliary_weight * auxiliary * near, s.auxiliary_clamp)

        each = (trans_loss, rots_loss, aatypes_loss, auxiliary_loss)
        for name, value in zip(NAMES, (*each, sum(each)), strict=True):
            found[name].append(float(value))
    return found


def late(batch: NoisyBatch, *times: float) -> NoisyBatch:
    """The batch at these times of the translations; rotations are a little behind."""
    t = torch.tensor(times)[:, None]
    return dataclasses.replace(batch, r3_t=t, so3_t=t - 0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"auxiliary_weight": 0.7},
        {"auxiliary_weight": 1.0, "auxiliary_atoms": False},
        {"auxiliary_weight": 1.0, "auxiliary_distances": False, "auxiliary_min_t": 0.0},
        {"translation_weight": 3.0, "rotation_weight": 0.5, "token_weight": 2.0, "max_t": 0.5, "use_plddt_mask": False},
        {"token_label_smoothing": 0.1, "token_likelihood_weighting": True, "token_sum": True},
        {"translation_clamp": 0.01, "auxiliary_clamp": 0.01, "auxiliary_weight": 1.0},
    ],
    ids=lambda settings: ",".join(settings) or "default",
)
def test_losses_are_what_their_definition_says(settings):
    batch = late(noisy_batch(size=4), 0.3, 0.7, 0.99, 0.52)
    found = losses(prediction(batch), batch, LossSettings(**settings))
    expected = definition(prediction(batch), batch, LossSettings(**settings))
    assert tuple(found) == NAMES
    for name in NAMES:
        assert found[name].shape == (4,)
        assert found[name].dtype == torch.float32
        assert found[name].tolist() == pytest.approx(expected[name], rel=2e-4, abs=1e-5), name


def test_a_token_without_a_column_is_left_out():
    batch = noisy_batch()
    batch = dataclasses.replace(batch, aatypes_1=batch.aatypes_1.masked_fill(torch.rand(2, 12) < 0.3, 20))
    p = prediction(batch, columns=20)
    found, expected = losses(p, batch, LossSettings()), definition(p, batch, LossSettings())
    assert found["aatypes_loss"].tolist() == pytest.approx(expected["aatypes_loss"], rel=1e-4)


def test_the_truth_has_no_loss_but_that_of_the_tokens():
    batch = late(noisy_batch(), 0.7, 0.9)
    logits = 50.0 * torch.nn.functional.one_hot(batch.aatypes_1, 21).float()
    truth = Prediction(batch.trans_1, batch.rotmats_1, logits, batch.aatypes_1)
    for name, value in losses(truth, batch, LossSettings(auxiliary_weight=1.0)).items():
        assert value.abs().max() < 1e-5, name


@pytest.mark.parametrize("extra", [1, 7])
def test_padding_changes_nothing_in_losses_and_gradients(extra):
    batch, settings = late(noisy_batch(), 0.7, 0.9), LossSettings(auxiliary_weight=1.0)
    p = prediction(batch)
    results = []
    for more in (0, extra):
        longer = padded(batch, more) if more else batch
        trans = torch.cat([p.pred_trans, torch.randn(2, more, 3)], 1).requires_grad_()
        rotmats = torch.cat([p.pred_rotmats, random_rotations(2, more)], 1).requires_grad_()
        logits = torch.cat([p.pred_logits, torch.randn(2, more, 21)], 1).requires_grad_()
        out = losses(Prediction(trans, rotmats, logits, longer.aatypes_1), longer, settings)
        out["train_loss"].sum().backward()
        results.append((out, [x.grad[:, :12] for x in (trans, rotmats, logits)]))
        assert all((x.grad[:, 12:] == 0).all() for x in (trans, rotmats, logits))
    for name in NAMES:
        torch.testing.assert_close(results[1][0][name], results[0][0][name], rtol=1e-5, atol=1e-6)
    for long, short in zip(results[1][1], results[0][1], strict=True):
        torch.testing.assert_close(long, short, rtol=1e-4, atol=1e-6)


def test_batch_mates_change_nothing():
    batch, settings = late(noisy_batch(size=3), 0.3, 0.7, 0.99), LossSettings(auxiliary_weight=1.0)
    p = prediction(batch)
    together = losses(p, batch, settings)
    for index in range(3):
        one = Prediction(*(getattr(p, f.name)[[index]] for f in dataclasses.fields(p)))
        for name, value in losses(one, rows(batch, index), settings).items():
            torch.testing.assert_close(value, together[name][[index]], rtol=1e-5, atol=1e-6)


def test_a_rigid_motion_of_everything_changes_nothing():
    batch, settings = late(noisy_batch(), 0.7, 0.9), LossSettings(auxiliary_weight=1.0)
    p = prediction(batch)
    turn, shift = random_rotations(2, seed=4), torch.tensor([[1.0, 2.0, 3.0], [-5.0, 0.0, 4.0]])
    there = dataclasses.replace(
        p, pred_trans=p.pred_trans @ turn.mT + shift[:, None], pred_rotmats=turn[:, None] @ p.pred_rotmats
    )
    before, after = losses(p, batch, settings), losses(there, moved(batch, turn, shift), settings)
    for name in NAMES:
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-5)


def test_given_absent_and_doubtful_residues_do_not_count():
    batch = noisy_batch(given=3, missing=3)
    p, settings = prediction(batch), LossSettings()
    silent = (batch.res_mask * batch.diffuse_mask * batch.plddt_mask) == 0
    spoiled = dataclasses.replace(
        p,
        pred_trans=torch.where(silent[..., None], 100.0, p.pred_trans),
        pred_logits=torch.where(silent[..., None], -7.0, p.pred_logits),
        pred_rotmats=torch.where(silent[..., None, None], torch.eye(3), p.pred_rotmats),
    )
    for name, value in losses(spoiled, batch, settings).items():
        torch.testing.assert_close(value, losses(p, batch, settings)[name])


def test_without_a_plddt_mask_all_residues_count():
    batch = noisy_batch()
    everywhere = dataclasses.replace(batch, plddt_mask=torch.ones(2, 12))
    for name, value in losses(prediction(batch), dataclasses.replace(batch, plddt_mask=None), LossSettings()).items():
        torch.testing.assert_close(value, losses(prediction(batch), everywhere, LossSettings())[name])


def test_an_example_in_which_nothing_counts_has_no_loss_and_finite_gradients():
    batch = late(noisy_batch(), 0.7, 0.9)
    batch = dataclasses.replace(batch, diffuse_mask=torch.zeros(2, 12))
    p = prediction(batch)
    leaves = [x.requires_grad_() for x in (p.pred_trans, p.pred_rotmats, p.pred_logits)]
    out = losses(p, batch, LossSettings(auxiliary_weight=1.0))
    out["train_loss"].sum().backward()
    assert all((value == 0).all() for value in out.values())
    assert all((leaf.grad == 0).all() for leaf in leaves)


@pytest.mark.parametrize("half_turn", ["exact", "positive"])
def test_gradients_are_finite_at_the_truth_and_half_a_turn_from_it(half_turn):
    batch = late(noisy_batch(given=0, missing=0), 0.7, 0.9)
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    for rotmats in (batch.rotmats_1, batch.rotmats_1 @ flip, batch.rotmats_t, batch.rotmats_t @ flip):
        leaf = rotmats.clone().requires_grad_()
        p = Prediction(batch.trans_1, leaf, torch.zeros(2, 12, 21), batch.aatypes_1)
        losses(p, batch, LossSettings(auxiliary_weight=1.0), half_turn)["train_loss"].sum().backward()
        assert leaf.grad.isfinite().all()


def test_losses_are_float32_under_autocast():
    batch = late(noisy_batch(), 0.7, 0.9)
    p, settings = prediction(batch), LossSettings(auxiliary_weight=1.0)
    expected = losses(p, batch, settings)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(p, batch, settings)
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("rows", [1, 7, 36, 1000])
def test_distances_in_rows_are_the_distances_at_once(rows, monkeypatch):
    """Losses and gradients do not depend on how many atoms are compared at a time."""
    batch, settings = late(noisy_batch(), 0.7, 0.9), LossSettings(auxiliary_weight=1.0, auxiliary_clamp=1e6)
    found = []
    for size in (10_000, rows):
        monkeypatch.setattr("app.losses.codesign._ROWS", size)
        p = prediction(batch)
        leaves = [p.pred_trans.requires_grad_(), p.pred_rotmats.requires_grad_()]
        loss = losses(p, batch, settings)["auxiliary_loss"]
        loss.sum().backward()
        found.append((loss, *(leaf.grad for leaf in leaves)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def test_without_logits_there_is_no_token_loss():
    batch = noisy_batch()
    with_head = losses(prediction(batch), batch, LossSettings())
    without = losses(dataclasses.replace(prediction(batch), pred_logits=None), batch, LossSettings())
    assert (without["aatypes_loss"] == 0).all()
    for name in ("trans_loss", "rots_vf_loss"):
        assert torch.equal(without[name], with_head[name])
