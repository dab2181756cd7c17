"""What a command line of train.py asks for: a new run, one from given weights, or one that goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from app.config.compose import chosen_groups, compose, typed_overrides
from app.config.diff import merge
from app.config.keys import lookup
from app.config.validate import parse
from app.errors import UserError
from app.model.esm.settings import WHERE as ESM
from app.model.esm.settings import LanguageHere
from app.training import slurm
from app.training.auto_resume import AUTO, folder_of, newest
from app.training.checkpoint import Opened, open_checkpoint
from app.training.meanwhile import Seen, look
from app.training.recipe import Recipe, parse_recipe
from app.training.resume import RUN_KEYS, amended_recipe
from app.training.run_folder import RunFolder


@dataclass
class Plan:
    """What a command line asks for, checked as far as that goes before anything is built."""

    recipe: Recipe
    folder: RunFolder
    seen: Seen  # the folder's checkpoints, before any was read
    resume: Opened | None = None
    weights: Opened | None = None
    weights_boltz: Path | None = None


AT_THE_BEGINNING = ("experiment", "weights", "weights_boltz", "use_ema")
"""Keys that have done their part when a run has its first checkpoint; `resume=auto` lets them stand."""


def plan_of(arguments: Sequence[str]) -> Plan:
    """Raises UserError for a command line that does not compose, a checkpoint that does not open or does not fit to it,
    and a folder that is not free."""
    typed = typed_overrides(arguments)
    resume = typed.get("resume")
    automatic = resume == AUTO or (slurm.was_requeued() and _folder_of(arguments, typed).holds_run())
    if automatic:
        folder = _folder_of(arguments, typed)
        seen = look(folder)
        if (opened := newest(folder, typed_language(typed))) is not None:
            return _continued(opened, folder, seen, _without(arguments, *AT_THE_BEGINNING))
    if resume not in (None, AUTO):
        for key in ("weights", "weights_boltz"):
            if typed.get(key) is not None:
                raise UserError(f"resume= and {key}=: give one; resume goes on with a run, {key} starts a new one")
        return _resumed(Path(resume), typed.get("out"), arguments, automatic)
    arguments = _without(arguments, "resume")
    language: dict[str, Any] = {}
    if typed.get("weights") is not None and not _chooses_model(others := _without_language(arguments)):
        language, arguments = typed_language(typed), others  # of the checkpoint's model, which no recipe knows yet
    config = compose("train", arguments)
    run = {key: config.pop(key) for key in RUN_KEYS}
    weights = None if run["weights"] is None else open_checkpoint(run["weights"], language)
    if weights is not None and not weights.is_finite:
        raise UserError(f"weights={weights.path}: its weights are not all finite: start from another checkpoint")
    _choose_ema(run["use_ema"], weights, typed)
    if weights is not None:
        _refuse_language(language, weights)
    if weights is not None and not _chooses_model(arguments):
        config = like_checkpoint(config, weights.recipe, arguments)
        if "out" not in typed:
            run["out"] = RunFolder.named(config["name"]).path
    if run["out"] is None:
        raise UserError("out=null: name the run's folder, or leave it out")
    if run["resume"] is not None:
        raise UserError(f"resume={run['resume']}: to be typed, not set by a recipe")
    boltz = None if run["weights_boltz"] is None else Path(run["weights_boltz"])
    folder = RunFolder(Path(run["out"]))
    plan = Plan(parse_recipe(config), folder, look(folder), weights=weights, weights_boltz=boltz)
    if rank_zero_only.rank == 0:
        plan.folder.refuse_other_run(plan.recipe.model_dump(mode="json") if automatic else None)
    return plan


def _folder_of(arguments: Sequence[str], typed: Mapping[str, Any]) -> RunFolder:
    """A run that takes its model from a checkpoint takes its name from there too."""
    if typed.get("weights") is not None and "out" not in typed and not _chooses_model(_without_language(arguments)):
        return RunFolder.named(open_checkpoint(typed["weights"], typed_language(typed)).recipe["name"])
    return folder_of(arguments, typed)


def _choose_ema(wanted: Any, weights: Opened | None, typed: Mapping[str, Any]) -> None:
    if wanted not in (True, False, "auto"):
        raise UserError(f"use_ema={wanted}: give auto, true or false")
    if weights is None and "use_ema" in typed:
        raise UserError("use_ema has no effect without weights=: leave it out")
    if weights is not None:
        weights.take_ema(wanted)


def _chooses_model(arguments: Sequence[str]) -> bool:
    """Whether the command line says which model it wants."""
    chosen = [*chosen_groups(arguments), *(key.replace(".", "/") for key in typed_overrides(arguments))]
    return any(key == "recipe" or key.startswith("model/") for key in chosen)


def typed_language(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed of where the language model is and how it is run, which a checkpoint does not settle."""
    said = {name: typed[key] for name in LanguageHere.model_fields if (key := f"{ESM}.{name}") in typed}
    for name, value in said.items():
        if value is None:
            raise UserError(f"{ESM}.{name}=null: give one, or leave it out")
    parse(LanguageHere, said, ESM)
    return said


def _refuse_language(language: Mapping[str, Any], opened: Opened) -> None:
    if language and opened.module.model.esm is None:
        raise UserError(f"{ESM}.{next(iter(language))} has no effect: this checkpoint's model has no language model")


def _without_language(arguments: Sequence[str]) -> list[str]:
    keys = [f"{ESM}.{name}" for name in LanguageHere.model_fields]
    return _without(arguments, *keys)


def _without(arguments: Sequence[str], *keys: str) -> list[str]:
    return [text for text in arguments if text.partition("=")[0] not in keys]


def like_checkpoint(config: dict, recipe: dict, arguments: Sequence[str]) -> dict:
    """A composed config with the model of a checkpoint's recipe, and what belongs to it: flow, losses, sampler, the
    average of its weights.

    What the user typed of these stays.
    """
    typed = typed_overrides(arguments)
    belonging = ("name", "model", "flow", "loss", "sampler", "ema")
    sections = [name for name in belonging if name not in chosen_groups(arguments)]
    own = {key: lookup(config, key) for key in typed if key.split(".")[0] in sections}
    return merge(config | {name: recipe[name] for name in sections}, own)


def _continued(opened: Opened, folder: RunFolder, seen: Seen, arguments: Sequence[str]) -> Plan:
    _refuse_language(typed_language(typed_overrides(arguments)), opened)
    opened.refuse_weights_only()
    recipe = amended_recipe(opened, arguments)
    if rank_zero_only.rank == 0:
        folder.refuse_unwritable()
    return Plan(recipe, folder, seen, resume=opened)


def _resumed(path: Path, out: str | None, arguments: Sequence[str], again: bool = False) -> Plan:
    """again: the same command was killed before the first checkpoint of the run that it begins in another folder."""
    language = typed_language(typed := typed_overrides(arguments))
    _choose_ema("auto", None, typed)
    own = RunFolder.of(path)
    folder = RunFolder(Path(out)) if out is not None else own
    seen = frozenset() if folder is None else look(folder)
    opened = open_checkpoint(path, language)
    _refuse_language(language, opened)
    opened.refuse_weights_only()
    recipe = amended_recipe(opened, arguments)
    if folder is None:
        raise UserError(f"resume={path}: not in the folder of a run: say with out=FOLDER where this one is to be")
    if rank_zero_only.rank == 0:
        if own is not None and folder.path.resolve() == own.path.resolve():
            folder.refuse_newer(path, opened.step)
        else:
            folder.refuse_other_run(recipe.model_dump(mode="json") if again else None)
    return Plan(recipe, folder, seen, resume=opened)
