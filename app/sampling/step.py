"""One step of a run: a model call and the Euler step after it, as a function of tensors alone."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from app.chem.residues import MASK_TOKEN, NUM_TOKENS
from app.devices import full_precision
from app.flow import rotations, tokens, translations
from app.sampling.inputs import Start, Task, refuse_without_head
from app.sampling.prepared import Prepared
from app.sampling.schedule import Moment, moment
from app.sampling.settings import SamplerSettings
from app.types import Frames, NoisyBatch, Prediction


class Point(NamedTuple):
    """Where a run is: all that a step reads of those before it."""

    trans: Tensor  # [B, N, 3] angstrom
    rotmats: Tensor  # [B, N, 3, 3]
    tokens: Tensor  # [B, N] int64
    trans_sc: Tensor  # [B, N, 3] angstrom, the model's last estimate
    logits_sc: Tensor  # [B, N, 21], its last logits

    @property
    def frames(self) -> Frames:
        return Frames(self.rotmats, self.trans)


class Clean(NamedTuple):
    """What the model took for the final protein."""

    trans: Tensor  # [B, N, 3] angstrom
    rotmats: Tensor  # [B, N, 3, 3]
    tokens: Tensor  # [B, N] int64


class Step:
    """`(point, row, uniform) -> (clean, next point)`, without looking at any number on the host.

    row: of `schedule.times`. uniform: what `draws` says the tokens need, or None.
    """

    def __init__(self, model: Prepared, start: Start, task: Task, sampler: SamplerSettings, first_row: Tensor):
        self.model, self.start, self.task, self.sampler = model, start, task, sampler
        moves = start.tokens_move if sampler.given_tokens_as_one_hot else start.moves
        self._logits_stay = (~moves & start.res_mask.bool())[..., None]
        self._given_logits = F.one_hot(start.given_tokens, NUM_TOKENS).float()
        self._fixed: dict[str, Any] = {}
        if (fixed := model.fixed) is not None:  # what the model makes of all that no step changes
            first = self._batch(self.begin(), moment(first_row))
            self._fixed = {"fixed": fixed(first, sequence_given=task.gives_tokens)}

    @property
    def draws(self) -> tuple[int, ...]:
        """Uniform numbers a residue that each step takes, as `Draws.uniform` is told."""
        return (4,) if self.sampler.token_step == "purity" else ()

    def begin(self) -> Point:
        """The noise, and nothing yet for the model to condition on."""
        frames, aatypes = self.start.frames, self.start.tokens
        no_logits = frames.trans.new_zeros(*aatypes.shape, NUM_TOKENS)
        return Point(frames.trans, frames.rotmats, aatypes, torch.zeros_like(frames.trans), no_logits)

    def __call__(self, point: Point, row: Tensor, uniform: Tensor | None) -> tuple[Clean, Point]:
        now = moment(row)
        prediction = self._predict(point, now)
        estimate, _ = self.start.keep_given(Frames(prediction.pred_rotmats, prediction.pred_trans), point.tokens)
        logits = torch.where(self._logits_stay, self._given_logits, prediction.logits_to_see())
        with full_precision(point.trans.device):
            frames, aatypes = self._euler_step(point, now, estimate, prediction.pred_logits, uniform)
        frames, aatypes = self.start.keep_given(frames, aatypes)
        clean = Clean(prediction.pred_trans, prediction.pred_rotmats, prediction.pred_aatypes)
        return clean, Point(frames.trans, frames.rotmats, aatypes, estimate.trans, logits)

    def designs(self, estimate: Clean, aatypes: Tensor) -> Clean:
        """What a run ends with: the last call's estimate, and tokens drawn on the way, where the sampler keeps them."""
        chosen = estimate.tokens
        if self.sampler.sequence == "sampled":
            chosen = torch.where(aatypes == MASK_TOKEN, chosen, aatypes)
        frames, aatypes = self.start.keep_given(Frames(estimate.rotmats, estimate.trans), chosen)
        return Clean(frames.trans, frames.rotmats, aatypes)

    def _predict(self, point: Point, now: Moment) -> Prediction:
        prediction = self.model(self._batch(point, now), **self._fixed)
        if prediction.pred_logits is None:
            refuse_without_head(self.task)
        return prediction

    def _batch(self, point: Point, now: Moment) -> NoisyBatch:
        start = self.start
        size = len(start.res_mask)
        return NoisyBatch(
            res_mask=start.res_mask,
            diffuse_mask=start.diffuse_mask,
            chain_idx=start.chain_idx,
            res_idx=start.res_idx,
            so3_t=now.structure_t.expand(size, 1),
            r3_t=now.structure_t.expand(size, 1),
            cat_t=now.token_t.expand(size, 1),
            trans_t=point.trans,
            rotmats_t=point.rotmats,
            aatypes_t=point.tokens,
            trans_sc=point.trans_sc,
            aatypes_sc=point.logits_sc,
        )

    def _euler_step(
        self, point: Point, now: Moment, estimate: Frames, logits: Tensor | None, uniform: Tensor | None
    ) -> tuple[Frames, Tensor]:
        """Frames and tokens after the step. Without logits the tokens stay as they are."""
        sampler = self.sampler
        trans = translations.euler_step(now.trans_share, point.trans, estimate.trans)
        rotmats = rotations.euler_step(now.rots_share, point.rotmats, estimate.rotmats, sampler.half_turn)
        frames, temperature = Frames(rotmats, trans), sampler.token_temperature
        if logits is None:
            return frames, point.tokens
        if sampler.token_step == "purity":
            uniform = uniform.movedim(-1, 0)
            return frames, tokens.purity_step(
                logits, point.tokens, now.rates, uniform, mask=self.start.moves, temperature=temperature
            )
        return frames, tokens.plain_step(
            logits,
            point.tokens,
            now.rates,
            uniform,
            kind=sampler.tokens,
            temperature=temperature,
            resample_unmasked=sampler.resample_unmasked,
        )
