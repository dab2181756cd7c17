"""A set of designs as a whole: diversity and novelty, by foldseek where it is installed, else by our own search."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from app.errors import UserError
from app.evaluation import columns, diversity, foldseek, novelty
from app.evaluation.cache import Cache
from app.evaluation.columns import SKIPPED, Value, number, skipped
from app.evaluation.measured import Measured
from app.evaluation.pool import Pool
from app.evaluation.settings import EvaluationSettings
from app.evaluation.subset import within

Tell = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

Say = Callable[[str], None]

Rows = dict[str, dict[str, Value]]

NOTHING = skipped((*columns.DIVERSITY, *columns.NOVELTY), "no structure")
"""The columns of what was not compared because it could not be read."""


def compared(
    good: Mapping[str, Measured], settings: EvaluationSettings, pool: Pool, cache: Cache, tell: Tell, say: Say
) -> tuple[Rows, dict[str, Any]]:
    """By id what comparing says of each design, and of all together. say: takes a line for whatever goes wrong."""
    sequences = {one.values["sequence"] for one in good.values() if one.values["sequence"].strip("X/")}
    tool = foldseek.identity() if settings.foldseek else None
    by_id: Rows = {name: {} for name in good}
    of_set: dict[str, Any] = {"unique_sequences": len(sequences)}
    for what, compare, own in (
        ("diversity", _diversity, columns.DIVERSITY),
        ("novelty", _novelty, columns.NOVELTY),
    ):
        found, of_set[what] = compare(good, settings, tool, pool, cache, partial(tell, what), say)
        reason = of_set[what].get("skipped", "not among those compared")
        for name in good:
            by_id[name] |= found.get(name) or skipped(own, reason)
    return by_id, of_set


def _diversity(good, settings, tool, pool, cache, tell, say: Say) -> tuple[Rows, dict[str, Any]]:
    if tool is not None:
        try:
            found, how = foldseek.clusters({name: one.protein for name, one in good.items()})
        except UserError as error:
            say(f"{error}; clusters are found without it")
        else:
            return _clustered(found, len(good), how)
    chosen = within(_lengths(good), settings.compare, settings.seed)
    if not chosen:
        return {}, {"skipped": f"--compare {settings.compare:g} allows for no pair"}
    found = diversity.clusters({name: good[name].trace for name in chosen}, pool, cache, tell)
    return _clustered(found, len(good), _ours(settings))


def _clustered(found: dict[str, int], designs: int, how: dict[str, Any]) -> tuple[Rows, dict[str, Any]]:
    clusters = len(set(found.values()))
    told = {
        "clusters": clusters,
        "diversity": number(clusters / len(found), "nothing"),
        "compared": len(found),
        "left_out": designs - len(found),
        "threshold": diversity.SAME_FOLD,
        "tool": how,
    }
    return {name: {"cluster": cluster} for name, cluster in found.items()}, told


def _novelty(good, settings, tool, pool, cache, tell, say: Say) -> tuple[Rows, dict[str, Any]]:
    if settings.novelty is None:
        return {}, {"skipped": "no --novelty given"}
    if tool is not None:
        try:
            found, how = foldseek.novelty({name: one.protein for name, one in good.items()}, settings.novelty)
        except UserError as error:
            say(f"{error}; novelty is found without it")
        else:
            return _nearest(found, len(good), how)
    known = novelty.read_known(settings.novelty, say)
    residues = sum(map(len, known.values()))
    chosen = within(_lengths(good), settings.compare, settings.seed, others=residues)
    if not chosen:
        return {}, {"skipped": f"--compare {settings.compare:g} is too little for {residues} residues of --novelty"}
    found = novelty.novelty({name: good[name].chains for name in chosen}, known, pool, cache, tell)
    return _nearest(found, len(good), _ours(settings) | {"chains": len(known)})


def _nearest(found: dict[str, tuple[float, str]], designs: int, how: dict[str, Any]) -> tuple[Rows, dict[str, Any]]:
    rows = {
        name: {"novelty_tm_score": score, "novelty_nearest": nearest or SKIPPED + "nothing is like it"}
        for name, (score, nearest) in found.items()
    }
    new = sum(score < diversity.SAME_FOLD for score, _ in found.values())
    told = {
        "new_folds": number(new / len(found), "nothing"),
        "compared": len(found),
        "left_out": designs - len(found),
        "threshold": diversity.SAME_FOLD,
        "tool": how,
    }
    return rows, told


def _lengths(good: Mapping[str, Measured]) -> dict[str, int]:
    return {name: one.values["length"] for name, one in good.items()}


def _ours(settings: EvaluationSettings) -> dict[str, Any]:
    return {"name": "trunkline", "million_residue_pairs": settings.compare}
