"""Which batches make one optimizer step, and how much each of them weighs in its gradient."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from app.errors import UserError
from app.types import Share


class StepSettings(BaseModel):
    """Either so many batches on each rank, or as many as it takes until all ranks' together hold so many residues."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batches: int = Field(1, gt=0)
    residues: int | None = Field(None, gt=0)


EACH_BATCH = StepSettings()


def steps_of(residues: Sequence[int], settings: StepSettings) -> list[int]:
    """An epoch cut into optimizer steps: the number of batches on each rank in each of them.

    residues: those of each batch, all ranks together. With a target in residues every step reaches it: what is left at
    the end of the epoch goes with the last step, and an epoch that is smaller than the target is one step.
    """
    if settings.residues is None:
        whole, rest = divmod(len(residues), settings.batches)
        return [settings.batches] * whole + [rest] * (rest > 0)
    ends, reached = [], 0
    for place, total in enumerate(accumulate(residues), 1):
        if total - reached >= settings.residues:
            ends.append(place)
            reached = total
    ends = [*ends[:-1], len(residues)]
    return np.diff([0, *ends]).tolist()


def shares_of(counts: np.ndarray, residues: Sequence[int], settings: StepSettings, rank: int) -> list[Share]:
    """The shares of a rank's batches of an epoch. counts: examples, [batches, ranks]. residues: as for `steps_of`."""
    shares, first, ranks = [], 0, counts.shape[1]
    for size in steps_of(residues, settings):
        step = counts[first : first + size]
        weights = ranks * step[:, rank] / step.sum()
        shares += [Share(float(weight), place == size - 1) for place, weight in enumerate(weights)]
        first += size
    return shares


def refuse_too_many(residues: Sequence[int], settings: StepSettings) -> None:
    """Raises UserError where an epoch has fewer residues than a step is to have."""
    if settings.residues is not None and (there := sum(residues)) < settings.residues:
        raise UserError(
            f"trainer.residues_per_step={settings.residues}: an epoch of these data has {there} residues: lower it, or"
            " set trainer.accumulate in its place"
        )
