"""Noising a batch of clean proteins: times, noise and paths of all three modalities together."""

import torch
from torch import Tensor

from app.chem.residues import NUM_TOKENS
from app.devices import full_precision
from app.flow import igso3, rotations, tokens, translations
from app.flow.settings import FlowSettings
from app.geometry.rotations import identity, product
from app.types import NoisyBatch, ProteinBatch


def draw_times(size: int, settings: FlowSettings, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Times of structure and of tokens, each [B, 1], uniform in [min_t, 1 - min_t].

    With separate times, a share of the examples has the tokens given (token time 1: forward folding) and another the
    frames (structure time 1: inverse folding).
    """
    uniform = torch.rand(3, size, 1, generator=generator)
    structure_t, token_t = uniform[:2] * (1 - 2 * settings.min_t) + settings.min_t
    if not settings.separate_times:
        return structure_t, structure_t.clone()
    kind, ahead = uniform[2], settings.forward_folding_share
    token_t = torch.where(kind < ahead, 1.0, token_t)
    inverse = (kind >= ahead) & (kind < ahead + settings.inverse_folding_share)
    return torch.where(inverse, 1.0, structure_t), token_t


def corrupt(
    batch: ProteinBatch,
    settings: FlowSettings,
    generator: torch.Generator | None = None,
    times: tuple[Tensor, Tensor] | None = None,
) -> NoisyBatch:
    """The batch at random times along the paths from noise to data, on the batch's device.

    All randomness comes from `generator`, a CPU one whatever the device: a seed means the same noise everywhere.
    times: of structure and of tokens, each [B, 1], in place of random ones.
    Residues outside diffuse_mask keep their clean frames and tokens; padding gets zeros and identity rotations.
    Coordinates are float32 whatever the autocast around.
    """
    with full_precision(batch.device):
        return _corrupt(batch, settings, generator, times or draw_times(len(batch.res_mask), settings, generator))


def _corrupt(
    batch: ProteinBatch, settings: FlowSettings, generator: torch.Generator | None, times: tuple[Tensor, Tensor]
) -> NoisyBatch:
    size, length = batch.res_mask.shape
    device = batch.device

    structure_t, token_t = (t.to(device) for t in times)
    moves = (batch.diffuse_mask * batch.res_mask).bool()

    trans_t = batch.trans_1
    if settings.corrupt_translations:
        gaussian = torch.randn(size, length, 3, generator=generator).to(device)
        noise = translations.centred_noise(gaussian, batch.res_mask, settings.translation_noise)
        if settings.batch_transport:
            paired = translations.pair_by_transport(
                gaussian * settings.translation_noise, batch.trans_1, batch.res_mask, inverse=settings.invert_transport
            )
            # Pairing turns noise towards the data. A sampler cannot, and where residues are given the turn would tell.
            given = (batch.res_mask.bool() & ~moves).any(-1)
            noise = torch.where(given[:, None, None], noise, paired)
        trans_t = translations.interpolate(structure_t, noise, batch.trans_1)
    trans_t = torch.where(moves[..., None], trans_t, batch.trans_1) * batch.res_mask[..., None]

    rotmats_t = batch.rotmats_1
    if settings.corrupt_rotations:
        perturbation = igso3.sample(settings.igso3_sigma, (size, length), generator).to(device)
        rotmats_t = rotations.interpolate(
            structure_t, product(batch.rotmats_1, perturbation), batch.rotmats_1, settings.half_turn
        )
    rotmats_t = torch.where(moves[..., None, None], rotmats_t, batch.rotmats_1)
    present = batch.res_mask.bool()[..., None, None]
    rotmats_t = torch.where(present, rotmats_t, identity(device=device))

    aatypes_t = batch.aatypes_1
    if settings.corrupt_tokens:
        when, what, besides = torch.rand(3, size, length, generator=generator).to(device)
        aatypes_t = tokens.corrupt(aatypes_t, token_t, settings.tokens, when, what)
        extra = besides < settings.extra_mask_share
        aatypes_t = torch.where(extra, tokens.noise_tokens("masking", besides), aatypes_t)
        aatypes_t = torch.where(moves, aatypes_t, batch.aatypes_1)

    return NoisyBatch(
        res_mask=batch.res_mask,
        diffuse_mask=batch.diffuse_mask,
        chain_idx=batch.chain_idx,
        res_idx=batch.res_idx,
        so3_t=structure_t,
        r3_t=structure_t,
        cat_t=token_t,
        trans_t=trans_t,
        rotmats_t=rotmats_t,
        aatypes_t=aatypes_t,
        trans_sc=torch.zeros_like(trans_t),
        aatypes_sc=trans_t.new_zeros(size, length, NUM_TOKENS),
        trans_1=batch.trans_1,
        rotmats_1=batch.rotmats_1,
        aatypes_1=batch.aatypes_1,
        plddt_mask=batch.plddt_mask,
        names=batch.names,
    )
