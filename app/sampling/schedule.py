"""The times of a run and all that a step reads of them, worked out before it starts.

They are a table on the device, one row a model call: a step is then the same function of tensors at every time, which
can be compiled once or captured in a CUDA graph, and no number has to travel while the run is under way.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from app.flow import rotations, tokens, translations
from app.flow.tokens import Rates
from app.sampling.inputs import Task
from app.sampling.settings import SamplerSettings


class Moment(NamedTuple):
    """A row of the table, each entry a tensor of one number."""

    structure_t: Tensor  # the times that the model is told
    token_t: Tensor
    trans_share: Tensor  # how far the Euler step goes: see `translations.share` and `rotations.share`
    rots_share: Tensor
    rates: Rates  # of the tokens


def moment(row: Tensor) -> Moment:
    """Views of a row [9] of the table."""
    structure_t, token_t, trans, rots, *rates = row.unbind()
    return Moment(structure_t, token_t, trans, rots, Rates(*rates))


def times(sampler: SamplerSettings, task: Task, steps: int, device: torch.device) -> Tensor:
    """The table [steps, 9] float32, from min_t to 1. The last row has no step, only times.

    Entries are computed in double precision by Python, which all devices share.
    """
    rows, at = [], torch.linspace(sampler.min_t, 1.0, steps).tolist()
    for index, t in enumerate(at):
        told = [sampler.fixed_t if given else t for given in (task.gives_frames, task.gives_tokens)]
        rows.append(told + (_step(sampler, t, at[index + 1] - t) if index < steps - 1 else [0.0] * 7))
    return torch.tensor(rows, dtype=torch.float32).to(device)


def _step(sampler: SamplerSettings, t: float, step: float) -> list[float]:
    noise = sampler.token_noise
    if sampler.tokens == "uniform" and sampler.sequence == "sampled" and step >= 1 - t:
        noise = 0.0  # what noise does in the last step would stay; where it masks, the last call fills in
    return [
        translations.share(step, t),
        rotations.share(step, t, sampler.rotation_schedule, sampler.rotation_rate),
        *tokens.rates(t, step, noise, sampler.tokens),
    ]
