"""The sampling loop (Campbell et al. 2024, algorithm 1), for all tasks: co-design, forward folding, inverse folding."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.chem.residues import MASK_TOKEN, NUM_TOKENS
from app.devices import full_precision, seeded
from app.errors import UserError
from app.flow import rotations, tokens, translations
from app.sampling.inputs import Start, Task, prepare, refuse_without_head, sampler_of, task_of
from app.sampling.settings import SamplerSettings
from app.sampling.trajectory import Recorder, Trajectory
from app.types import Frames, NoisyBatch, Prediction


@torch.no_grad()
def sample(
    model: Callable[[NoisyBatch], Prediction],
    *,
    task: str | Task = "unconditional",
    steps: int = 100,
    sampler: str | SamplerSettings = "euler",
    seed: int | Sequence[int] = 0,
    lengths: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    keep_path: bool = True,
    on_step: Callable[[int], None] | None = None,
    trans_0: Tensor | None = None,
    rotmats_0: Tensor | None = None,
    aatypes_0: Tensor | None = None,
    trans_1: Tensor | None = None,
    rotmats_1: Tensor | None = None,
    aatypes_1: Tensor | None = None,
    res_mask: Tensor | None = None,
    diffuse_mask: Tensor | None = None,
    chain_idx: Tensor | None = None,
    res_idx: Tensor | None = None,
) -> Trajectory:
    """Designs from noise in `steps` model calls.

    model: called with a NoisyBatch on `device` (default: where its parameters are, else the CPU). To be in eval mode.
    sampler: "euler", "multiflow_legacy", or settings. seed: one a design, or of the first, the others counting on from
    it; a design depends on its own seed only, save where the model drops out in inference: then on all of its batch.
    lengths: residues of each design, where no tensor gives the shape.
    keep_path: keep every point of the way, else the last. on_step: called with the number of model calls made so far.

    trans_0 [B, N, 3] (angstrom), rotmats_0 [B, N, 3, 3], aatypes_0 [B, N]: the noise, drawn if not given.
    trans_1, rotmats_1, aatypes_1: what the task gives (forward folding the last, inverse folding the first two), and
    the residues that stay as they are where diffuse_mask is 0. res_mask, diffuse_mask [B, N]: all 1 if not given.
    chain_idx, res_idx [B, N]: one chain counted from 1 if not given.

    Raises UserError for an unknown task or sampler, and for inputs that are missing, misshapen or not finite.
    """
    task, sampler = task_of(task), sampler_of(sampler)
    if steps < 2:
        raise UserError(f"steps={steps}: sampling takes at least 2 steps")
    given = {"trans_0": trans_0, "rotmats_0": rotmats_0, "aatypes_0": aatypes_0, "trans_1": trans_1,
             "rotmats_1": rotmats_1, "aatypes_1": aatypes_1, "res_mask": res_mask, "diffuse_mask": diffuse_mask,
             "chain_idx": chain_idx, "res_idx": res_idx}  # fmt: skip
    start = prepare(task, sampler, seed, lengths, torch.device(device or _device_of(model)), given)

    frames, aatypes = start.frames, start.tokens
    path, clean = Recorder(keep_path), Recorder(keep_path)
    path.add(frames, aatypes)
    times = torch.linspace(sampler.min_t, 1.0, steps).tolist()
    trans_sc, logits_sc = torch.zeros_like(frames.trans), frames.trans.new_zeros(*aatypes.shape, NUM_TOKENS)

    for call, t in enumerate(times):
        final = call == steps - 1
        if not (final and sampler.stale_final_call):
            seen_t, seen_tokens = t, aatypes
        with _own_numbers(model, start):
            prediction = model(_model_input(start, task, sampler, seen_t, frames, seen_tokens, trans_sc, logits_sc))
        estimate = Frames(prediction.pred_rotmats, prediction.pred_trans)
        if prediction.pred_logits is None:
            refuse_without_head(task)
        if final:
            chosen = prediction.pred_aatypes
            if sampler.sequence == "sampled":
                chosen = torch.where(aatypes == MASK_TOKEN, chosen, aatypes)
            frames, aatypes = start.keep_given(estimate, chosen)
            clean.add(frames, aatypes)
        else:
            clean.add(estimate, prediction.pred_aatypes)
            estimate, _ = start.keep_given(estimate, aatypes)
            trans_sc, logits_sc = estimate.trans, _previous_logits(start, sampler, prediction.logits_to_see())
            with full_precision(frames.trans.device):
                moved = _euler_step(
                    start, sampler, t, times[call + 1] - t, frames, aatypes, estimate, prediction.pred_logits
                )
            frames, aatypes = start.keep_given(*moved)
        path.add(frames, aatypes)
        if on_step is not None:
            on_step(call + 1)
    return Trajectory(*path.stacked(), *clean.stacked(), start.peptide_bond.cpu(), start.res_mask.cpu())


def _own_numbers(model: Callable, start: Start) -> AbstractContextManager:
    """Where a model draws in inference, torch's generators follow the designs' seeds, and are after it as before."""
    if not getattr(model, "draws_in_inference", False):
        return nullcontext()
    return seeded(start.draws.seed(), start.res_mask.device)


def _model_input(
    start: Start,
    task: Task,
    sampler: SamplerSettings,
    t: float,
    frames: Frames,
    aatypes: Tensor,
    trans_sc: Tensor,
    logits_sc: Tensor,
) -> NoisyBatch:
    def time(given: bool) -> Tensor:
        return start.res_mask.new_full((len(start.res_mask), 1), sampler.fixed_t if given else t)

    return NoisyBatch(
        res_mask=start.res_mask,
        diffuse_mask=start.diffuse_mask,
        chain_idx=start.chain_idx,
        res_idx=start.res_idx,
        so3_t=time(task.gives_frames),
        r3_t=time(task.gives_frames),
        cat_t=time(task.gives_tokens),
        trans_t=frames.trans,
        rotmats_t=frames.rotmats,
        aatypes_t=aatypes,
        trans_sc=trans_sc,
        aatypes_sc=logits_sc,
    )


def _previous_logits(start: Start, sampler: SamplerSettings, logits: Tensor) -> Tensor:
    """Logits for self-conditioning, [B, N, 21], those of given residues one-hot, as in training."""
    stay = ~(start.tokens_move if sampler.given_tokens_as_one_hot else start.moves) & start.res_mask.bool()
    one_hot = F.one_hot(start.given_tokens, NUM_TOKENS).to(logits.dtype)
    return torch.where(stay[..., None], one_hot, logits)


def _euler_step(
    start: Start,
    sampler: SamplerSettings,
    t: float,
    step: float,
    frames: Frames,
    aatypes: Tensor,
    estimate: Frames,
    logits: Tensor | None,
) -> tuple[Frames, Tensor]:
    """Frames and tokens at t + step. Without logits the tokens stay as they are."""
    trans = translations.euler_step(step, t, frames.trans, estimate.trans)
    rotmats = rotations.euler_step(
        step,
        t,
        frames.rotmats,
        estimate.rotmats,
        schedule=sampler.rotation_schedule,
        rate=sampler.rotation_rate,
        half_turn=sampler.half_turn,
    )
    if logits is None:
        return Frames(rotmats, trans), aatypes
    noise = sampler.token_noise
    if sampler.tokens == "uniform" and sampler.sequence == "sampled" and step >= 1 - t:
        noise = 0.0  # what noise does in the last step would stay; where it masks, the last call fills in
    rates = {"temperature": sampler.token_temperature, "noise": noise}
    if sampler.token_step == "purity":
        uniform = start.draws.uniform(4).movedim(-1, 0)
        aatypes = tokens.purity_step(logits, aatypes, t, step, uniform, mask=start.moves, **rates)
    else:
        aatypes = tokens.plain_step(
            logits,
            aatypes,
            t,
            step,
            start.draws.uniform(),
            kind=sampler.tokens,
            resample_unmasked=sampler.resample_unmasked,
            **rates,
        )
    return Frames(rotmats, trans), aatypes


def _device_of(model) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
