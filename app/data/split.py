"""What is trained on and what is held out for validation: two parts that no cluster shares."""

import hashlib
import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from app.data.part import Part, Whole
from app.errors import UserError

log = logging.getLogger(__name__)

AUTO_FRACTION = 0.02
AUTO_CLUSTERS = 50
"""`fraction: auto` holds out this share where there are so many clusters, and nothing where there are fewer."""


class ValidationSettings(BaseModel):
    """What is held out (key `data.validation`); whole clusters always."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fraction: Literal["auto"] | Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the examples; auto: see `AUTO_FRACTION`
    hold_out: tuple[str, ...] = ()  # examples or entries whose clusters are held out as well
    seed: int = Field(0, ge=0)  # of the choice of clusters

    def is_on(self, examples: int) -> bool:
        """Whether anything is to be held out of so many examples, as far as that can be told without their clusters."""
        return bool(self.hold_out) or (examples >= AUTO_CLUSTERS if self.fraction == "auto" else self.fraction > 0)


def split(
    whole: Whole, clusters: np.ndarray, settings: ValidationSettings, drawn_from: np.ndarray | None
) -> tuple[Part, Part | None]:
    """The examples to train on, and those held out, if any.

    clusters: [examples] that must stay on one side; -1 where an example is in none, which leaves it out. drawn_from:
    [examples] clusters of which an epoch draws one example each, or None for every example.

    Raises UserError: see `held_out`.
    """
    known = np.flatnonzero(clusters >= 0)
    if len(known) < len(clusters):
        log.info("%d examples are in no cluster and left out", len(clusters) - len(known))
    names = list(whole.names)
    held = held_out([names[index] for index in known.tolist()], clusters[known], settings)
    training, validation = (
        Part(whole, side, None if drawn_from is None else drawn_from[side]) for side in (known[~held], known[held])
    )
    if not len(validation):
        return training, None
    sizes = [f"{side.sum()} examples in {len(np.unique(clusters[known[side]]))} clusters" for side in (held, ~held)]
    log.info("validation holds out %s; training has %s", *sizes)
    return training, validation


def held_out(names: Sequence[str], clusters: np.ndarray, settings: ValidationSettings) -> np.ndarray:
    """[examples] bool: whether each belongs to a cluster that is held out.

    Clusters are gone through in an order that depends on the seed and on a name in each, so that a set that grows
    holds out much the same, and taken as long as they fit into the fraction; at least one is.

    Raises UserError: a fraction of a single cluster; a name that is none of the examples'; nothing left to train on.
    """
    _, of, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    chosen = np.zeros(len(sizes), dtype=bool)
    if settings.hold_out:
        chosen[_clusters_of(settings.hold_out, names, of)] = True
    fraction = settings.fraction
    if fraction == "auto":
        fraction = AUTO_FRACTION if len(sizes) >= AUTO_CLUSTERS else 0.0
        if not fraction:
            log.info("validation: none, of only %d clusters; data.validation.fraction=0.1 asks for it", len(sizes))
    if fraction > 0 and len(sizes) < 2:
        raise UserError(
            f"data.validation.fraction={fraction:g}: the {len(names)} examples are all of one cluster, so none that is"
            " held out would be unlike the rest; add other proteins, or train on all with data.validation.fraction=0"
        )
    if fraction > 0:
        left = int(fraction * len(names)) - sizes[chosen].sum()
        order = _order(names, of, settings.seed)
        for cluster in order:
            if not chosen[cluster] and sizes[cluster] <= left:
                chosen[cluster], left = True, left - sizes[cluster]
        if not chosen.any():
            chosen[min(order, key=lambda cluster: sizes[cluster])] = True
    if chosen.all():
        raise UserError("data.validation: holds out every cluster, so nothing is left to train on; hold out fewer")
    return chosen[of]


def _clusters_of(wanted: Sequence[str], names: Sequence[str], of: np.ndarray) -> list[int]:
    """Clusters of examples by their name or their entry's: `1ubq` stands for `1ubq_A` and all its other chains."""
    found: dict[str, list[int]] = {}
    for name, cluster in zip(names, of.tolist(), strict=True):
        for key in {name.upper(), name.upper().rpartition("_")[0]}:
            found.setdefault(key, []).append(cluster)
    for name in wanted:
        if name.upper() not in found:
            raise UserError(f"data.validation.hold_out: {name} is none of the examples in use; see: data check")
    return [cluster for name in wanted for cluster in found[name.upper()]]


def _order(names: Sequence[str], of: np.ndarray, seed: int) -> list[int]:
    """The clusters in an order drawn by the first name in each."""
    first: dict[int, str] = {}
    for name, cluster in sorted(zip(names, of.tolist(), strict=True)):
        first.setdefault(cluster, name)
    return sorted(first, key=lambda cluster: hashlib.sha256(f"{seed} {first[cluster]}".encode()).digest())
