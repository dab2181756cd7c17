"""What is trained on and what is held out for validation: two parts that no cluster shares."""

import hashlib
import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from app.data.part import Part, Whole
from app.data.seen import Seen
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
    whole: Whole,
    clusters: np.ndarray,
    settings: ValidationSettings,
    drawn_from: np.ndarray | None,
    seen: Seen | None = None,
) -> tuple[Part, Part | None]:
    """The examples to train on, and those held out, if any.

    clusters: [examples] that must stay on one side; -1 where an example is in none, which leaves it out. drawn_from:
    [examples] clusters of which an epoch draws one example each, or None for every example. seen: what a run that goes
    on was trained on and what it held out, of these data or others.

    Raises UserError: see `held_out` and `held_out_again`.
    """
    known = np.flatnonzero(clusters >= 0)
    if len(known) < len(clusters):
        log.info("%d examples are in no cluster and left out", len(clusters) - len(known))
    names = list(whole.names)
    names = [names[index] for index in known.tolist()]
    if seen is None or not any(name in seen.trained or name in seen.held_out for name in names):
        held = held_out(names, clusters[known], settings)
        trained = ~held
    else:
        held, neither = held_out_again(names, clusters[known], settings, seen)
        trained = ~held & ~neither
    training, validation = (
        Part(whole, side, None if drawn_from is None else drawn_from[side]) for side in (known[trained], known[held])
    )
    kinds, kinds_held = (len(np.unique(clusters[known[side]])) for side in (trained, held))
    if not len(validation):
        log.info("nothing is held out of %d clusters: ask for it by data.validation.fraction=0.1", kinds)
        return training, None
    log.info("clusters: %d trained on, %d held out (%d examples)", kinds, kinds_held, len(validation))
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
        chosen[[cluster for _, cluster in clusters_named(settings.hold_out, names, of)]] = True
    fraction = fraction_of(settings, len(sizes))
    if fraction > 0 and len(sizes) < 2:
        raise UserError(
            f"data.validation.fraction={fraction:g}: the {len(names)} examples are all of one cluster, so none that is"
            " held out would be unlike the rest; add other proteins, or train on all with data.validation.fraction=0"
        )
    if fraction > 0:
        order = in_order(names, of, settings.seed)
        left = int(fraction * len(names)) - sizes[chosen].sum()
        chosen[fitting([cluster for cluster in order if not chosen[cluster]], sizes, left)] = True
        if not chosen.any():
            chosen[min(order, key=lambda cluster: sizes[cluster])] = True
    if chosen.all() and len(chosen):
        raise UserError("data.validation: holds out every cluster, so nothing is left to train on; hold out fewer")
    return chosen[of]


def held_out_again(
    names: Sequence[str], clusters: np.ndarray, settings: ValidationSettings, seen: Seen
) -> tuple[np.ndarray, np.ndarray]:
    """[examples] bool: which are held out; [examples] bool: which are on neither side.

    What was trained on is trained on, what was held out is held out, and what is new goes with its cluster. Where a
    cluster has examples of both sides, since something new is like both or likeness is another, its new ones are left
    out. Of clusters that are new as a whole as many are held out as the settings ask for in all.

    Raises UserError where the settings name an example to hold out that is like what was trained on.
    """
    _, of, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    was_trained = np.array([name in seen.trained for name in names], dtype=bool)
    was_held = np.array([name in seen.held_out for name in names], dtype=bool) & ~was_trained
    trains, holds = (np.bincount(of, side, len(sizes)) > 0 for side in (was_trained, was_held))
    chosen = holds & ~trains
    for name, cluster in clusters_named(settings.hold_out, names, of):
        if trains[cluster] and not holds[cluster]:
            raise UserError(
                f"data.validation.hold_out: {name} is like what this run has trained on, and cannot be held out any"
                " more: leave it out, or start a new run"
            )
        chosen[cluster] |= not trains[cluster]
    asked = int(fraction_of(settings, len(sizes)) * len(names)) - (chosen[of] | was_held).sum()
    new = ~trains & ~chosen
    chosen[fitting([cluster for cluster in in_order(names, of, settings.seed) if new[cluster]], sizes, asked)] = True
    held = was_held | (chosen[of] & ~was_trained)
    neither = (trains & holds)[of] & ~was_trained & ~was_held
    if neither.any():
        log.info("%d new examples are like others on both sides, and left out", neither.sum())
    log.info("what was trained on and what was held out stay so: data.validation is of new clusters alone")
    return held, neither


def fraction_of(settings: ValidationSettings, clusters: int) -> float:
    """What share of the examples is to be held out where there are so many clusters."""
    if settings.fraction == "auto":
        return AUTO_FRACTION if clusters >= AUTO_CLUSTERS else 0.0
    return settings.fraction


def fitting(order: Sequence[int], sizes: np.ndarray, left: int) -> list[int]:
    """Of clusters, in this order, those that fit into so many examples."""
    chosen = []
    for cluster in order:
        if sizes[cluster] <= left:
            chosen.append(cluster)
            left -= sizes[cluster]
    return chosen


def clusters_named(wanted: Sequence[str], names: Sequence[str], of: np.ndarray) -> list[tuple[str, int]]:
    """(name, cluster) of examples by their name or their entry's: `1ubq` stands for `1ubq_A` and all its other chains.

    Raises UserError for a name that is none of the examples'.
    """
    if not wanted:
        return []
    found: dict[str, list[int]] = {}
    for name, cluster in zip(names, of.tolist(), strict=True):
        for key in {name.upper(), name.upper().rpartition("_")[0]}:
            found.setdefault(key, []).append(cluster)
    for name in wanted:
        if name.upper() not in found:
            raise UserError(f"data.validation.hold_out: {name} is none of the examples in use; see: data check")
    return [(name, cluster) for name in wanted for cluster in found[name.upper()]]


def in_order(names: Sequence[str], of: np.ndarray, seed: int) -> list[int]:
    """The clusters in an order drawn by the first name in each."""
    first: dict[int, str] = {}
    for name, cluster in sorted(zip(names, of.tolist(), strict=True)):
        first.setdefault(cluster, name)

    def drawn(cluster: int) -> bytes:
        return hashlib.sha256(f"{seed} {first[cluster]}".encode("utf-8", "surrogateescape")).digest()

    return sorted(first, key=drawn)
