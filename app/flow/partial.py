"""Which residues of training examples are given, for a model to learn partial design."""

import dataclasses

import torch
from torch import Tensor

from app.flow.settings import PartialSettings
from app.types import ProteinBatch


def with_given_residues(
    batch: ProteinBatch, settings: PartialSettings, generator: torch.Generator | None = None
) -> ProteinBatch:
    """The batch with some residues of some examples out of its diffuse_mask: these are given, see `corrupt`.

    At least one residue of such an example is given and one is designed; an example of a single one is left as it is.
    All randomness comes from `generator`, a CPU one; with probability 0 nothing is drawn.
    """
    if settings.probability == 0:
        return batch
    designed = (batch.res_mask * batch.diffuse_mask).cpu() > 0
    chosen = torch.rand(len(designed), generator=generator) < settings.probability
    diffuse_mask = batch.diffuse_mask.clone()
    for row in chosen.nonzero()[:, 0].tolist():
        places = designed[row].nonzero()[:, 0]
        if len(places) > 1:
            given = places[_drawn(len(places), settings, generator)]
            diffuse_mask[row, given.to(diffuse_mask.device)] = 0
    return dataclasses.replace(batch, diffuse_mask=diffuse_mask)


def _drawn(length: int, settings: PartialSettings, generator: torch.Generator | None) -> Tensor:
    """Which of `length` residues are given, [length] bool."""
    share, kind = torch.rand(2, generator=generator).tolist()
    share = settings.least + (settings.most - settings.least) * share
    number = min(max(round(share * length), 1), length - 1)
    if kind < settings.scattered:
        given = torch.zeros(length, dtype=torch.bool)
        given[torch.randperm(length, generator=generator)[:number]] = True
        return given
    return _stretches(number, length, settings.segments, generator)


def _stretches(number: int, length: int, most: int, generator: torch.Generator | None) -> Tensor:
    """[length] bool with `number` true in 1 to `most` stretches: every way to cut and place them is equally likely."""
    free = length - number
    count = int(torch.randint(1, min(most, number, free + 1) + 1, (), generator=generator))
    ends = torch.randperm(number - 1, generator=generator)[: count - 1].sort()[0] + 1
    sizes = torch.cat([ends, ends.new_tensor([number])]).diff(prepend=ends.new_zeros(1))
    before = torch.randperm(free + 1, generator=generator)[:count].sort()[0]  # designed residues ahead of each stretch
    given = torch.zeros(length, dtype=torch.bool)
    for start, size in zip((before + sizes.cumsum(0) - sizes).tolist(), sizes.tolist(), strict=True):
        given[start : start + size] = True
    return given
