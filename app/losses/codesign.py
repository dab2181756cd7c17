"""Multiflow's losses (Campbell et al. 2024, appendix): translations, rotations, tokens, geometry near the data's end.

Every loss is one number an example, [B], so that logs can sort them by time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.devices import full_precision
from app.geometry import rotations
from app.geometry.backbone import backbone_atoms
from app.losses.settings import LossSettings
from app.ops.recompute import by_rows
from app.types import Frames, NoisyBatch, Prediction


def losses(
    prediction: Prediction, batch: NoisyBatch, settings: LossSettings, half_turn: str = "exact"
) -> dict[str, Tensor]:
    """trans_loss, rots_vf_loss, aatypes_loss, auxiliary_loss and their sum train_loss, each [B] float32.

    The batch must hold trans_1, rotmats_1 and aatypes_1. Residues that are absent or given (diffuse_mask 0) do not
    count; an example without any that counts has losses of 0. half_turn: see geometry.rotations.log.
    """
    with full_precision(batch.device):
        mask = batch.res_mask * batch.diffuse_mask
        if settings.use_plddt_mask and batch.plddt_mask is not None:
            mask = mask * batch.plddt_mask
        count = mask.sum(-1).clamp(min=1)
        to_go = 1 - torch.cat([batch.r3_t, batch.so3_t, batch.cat_t], -1).clamp(max=settings.max_t)
        r3_to_go, so3_to_go, cat_to_go = to_go[..., None].unbind(1)

        def mean_square(error: Tensor) -> Tensor:
            return (error.square() * mask[..., None]).sum((-1, -2)) / (3 * count)

        trans_error = (batch.trans_1 - prediction.pred_trans) * settings.translation_scale / r3_to_go[..., None]
        trans_loss = settings.translation_weight * mean_square(trans_error)
        trans_loss = trans_loss.clamp(max=settings.translation_clamp)

        true_field = rotations.rotation_vector_field(batch.rotmats_t, batch.rotmats_1, half_turn)
        field = rotations.rotation_vector_field(batch.rotmats_t, prediction.pred_rotmats, half_turn)
        rots_loss = settings.rotation_weight * mean_square((true_field - field) / so3_to_go[..., None])

        aatypes_loss = torch.zeros_like(trans_loss)
        if prediction.pred_logits is not None:
            aatypes_loss = _token_loss(prediction.pred_logits, batch.aatypes_1.long(), cat_to_go, mask, settings)
        auxiliary_loss = torch.zeros_like(trans_loss)
        if settings.auxiliary_weight:
            auxiliary_loss = _auxiliary_loss(prediction, batch, mask, r3_to_go, settings)
        total = trans_loss + rots_loss + aatypes_loss + auxiliary_loss
    return {
        "trans_loss": trans_loss,
        "rots_vf_loss": rots_loss,
        "aatypes_loss": aatypes_loss,
        "auxiliary_loss": auxiliary_loss,
        "train_loss": total,
    }


def _token_loss(logits: Tensor, truth: Tensor, to_go: Tensor, mask: Tensor, settings: LossSettings) -> Tensor:
    """Cross-entropy against the clean tokens, [B]. A type without a column (X where no mask token is) is left out."""
    known = truth < logits.shape[-1]
    entropy = F.cross_entropy(
        logits.flatten(0, 1),
        torch.where(known, truth, 0).flatten(),
        reduction="none",
        label_smoothing=settings.token_label_smoothing,
    ).view_as(mask)
    if settings.token_likelihood_weighting:
        entropy = entropy / to_go
    total = settings.token_weight * (entropy * mask * known).sum(-1)
    return total if settings.token_sum else total / mask.sum(-1).clamp(min=1)


def _auxiliary_loss(
    prediction: Prediction, batch: NoisyBatch, mask: Tensor, to_go: Tensor, settings: LossSettings
) -> Tensor:
    """Squared errors of the atoms N, CA, C and of their distances, for examples whose structure is nearly clean."""
    size = len(mask)
    scale = (settings.auxiliary_scale / to_go)[..., None, None]
    truth = backbone_atoms(Frames(batch.rotmats_1, batch.trans_1)) * scale
    estimate = backbone_atoms(Frames(prediction.pred_rotmats, prediction.pred_trans)) * scale

    total = torch.zeros_like(mask[:, 0])
    if settings.auxiliary_atoms:
        error = (truth - estimate).square().sum((-1, -2))
        total = total + (error * mask).sum(-1) / (3 * mask.sum(-1).clamp(min=1))
    if settings.auxiliary_distances:
        counts = mask.repeat_interleave(3, dim=-1)
        present = batch.res_mask.repeat_interleave(3, dim=-1)
        squared = _distance_errors(truth.view(size, -1, 3), estimate.view(size, -1, 3), counts, present)
        total = total + squared / (counts.sum(-1) * present.sum(-1) + 1)
    near = (batch.r3_t > settings.auxiliary_min_t) & (batch.so3_t > settings.auxiliary_min_t)
    return (settings.auxiliary_weight * total * near[:, 0]).clamp(max=settings.auxiliary_clamp)


_ROWS = 192
"""Atoms whose distances to all others are compared at a time: memory grows with the length, not with its square."""


def _distance_errors(truth: Tensor, estimate: Tensor, counts: Tensor, present: Tensor) -> Tensor:
    """Sum over pairs of squared errors in distance, [B]. truth, estimate: [B, M, 3]; masks of i and of j: [B, M]."""
    return _errors_of_rows(_ROWS, [truth, estimate, counts], [truth, estimate, present]).sum(-1)


@by_rows
def _errors_of_rows(
    these: Tensor, those: Tensor, counts: Tensor, truth: Tensor, estimate: Tensor, present: Tensor
) -> Tensor:
    """[B, rows]"""
    error = _distances(these, truth) - _distances(those, estimate)
    return (error.square() * present[:, None]).sum(-1) * counts


def _distances(these: Tensor, points: Tensor) -> Tensor:
    """[B, R, 3] and [B, M, 3] -> [B, R, M]."""
    return (these[:, :, None] - points[:, None]).norm(dim=-1)
