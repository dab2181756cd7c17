"""Losses of held-out examples at fixed times and with fixed noise, which runs can be compared by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from app.flow.interpolant import corrupt
from app.flow.settings import FlowSettings
from app.sampling.designs import seed_of
from app.types import NoisyBatch, ProteinBatch

if TYPE_CHECKING:
    from app.training.module import CodesignModule

SEED = 0
"""Of all randomness in validation, whatever the run's own seed."""

NAMES = {
    "train_loss": "validation_loss",
    "trans_loss": "validation_trans_loss",
    "rots_vf_loss": "validation_rots_vf_loss",
    "aatypes_loss": "validation_aatypes_loss",
    "auxiliary_loss": "validation_auxiliary_loss",
}
"""Losses in training, and what they are called here; with `at`, of one time."""


def at(name: str, time: float) -> str:
    return f"{name}_t{time:.2f}"


def held_out_losses(module: CodesignModule, batch: ProteinBatch) -> dict[str, Tensor]:
    """By `at(name, time)`, the losses of every example, [B] each; structure and tokens are at the same time.

    An example's noise depends on its name and the time: not on what shares its batch, on the number of ranks, or on the
    run. Where the recipe trains with self-conditioning, the model sees its own estimate from the same noise, as it does
    in sampling, in every case: no chance decides.
    """
    found: dict[str, Tensor] = {}
    for time in module.recipe.validation.times:
        noisy = noised(batch, module.recipe.flow, time)
        if module.recipe.flow.self_condition_share > 0:
            noisy = module.with_own_estimate(noisy)
        found |= {at(NAMES[name], time): values for name, values in module.losses(noisy).items()}
    return found


def noised(batch: ProteinBatch, flow: FlowSettings, time: float) -> NoisyBatch:
    """The batch at that time, each example as if it were alone, without padding."""
    still = flow.model_copy(
        update=dict.fromkeys(("corrupt_translations", "corrupt_rotations", "corrupt_tokens"), False)
    )
    times = torch.full((len(batch.names), 1), time)
    whole = corrupt(batch, still, times=(times, times))
    whole = dataclasses.replace(whole, aatypes_t=whole.aatypes_t.clone())
    ends = (batch.res_mask.cpu() > 0).long().cumsum(-1).argmax(-1) + 1  # where the last present residue is
    for row, (name, end) in enumerate(zip(batch.names, ends.tolist(), strict=True)):
        generator = torch.Generator().manual_seed(seed_of(SEED, f"{name}/{time:g}"))
        alone = batch.map(lambda tensor, row=row, end=end: tensor[row : row + 1, :end])
        one = corrupt(alone, flow, generator, (times[:1], times[:1]))
        for field in ("trans_t", "rotmats_t", "aatypes_t"):
            getattr(whole, field)[row, :end] = getattr(one, field)[0]
    return whole


def over_times(row: Mapping[str, float], times: Sequence[float]) -> dict[str, float]:
    """The means over the times, by the names of `NAMES`, of a row that has them by time."""
    named = {name: [row[at(name, time)] for time in times if at(name, time) in row] for name in NAMES.values()}
    return {name: sum(values) / len(values) for name, values in named.items() if values}


def columns(times: Sequence[float]) -> tuple[str, ...]:
    """Columns of the log."""
    return (*NAMES.values(), *(at(name, time) for name in NAMES.values() for time in times)) if times else ()
