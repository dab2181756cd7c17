"""The recipe of a run that goes on: the checkpoint's, amended by what the user typed and by nothing else."""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from app.config.compose import chosen_groups, compose, options, typed_overrides
from app.config.diff import differences, merge
from app.config.keys import leaves, lookup
from app.config.overrides import RECIPES
from app.errors import UserError
from app.training.checkpoint import Opened
from app.training.recipe import OF_THE_MACHINE, Recipe, parse_recipe

RUN_KEYS = ("out", "resume", "weights", "weights_boltz", "use_ema", "environment")  # of a run, not of its recipe


def amended_recipe(opened: Opened, arguments: Sequence[str]) -> Recipe:
    """The checkpoint's recipe with the sections of the groups and the values that were typed.

    Raises UserError for what contradicts the checkpoint (another recipe, another model), for an experiment, for unknown
    keys and invalid values, and for what the checkpoint does not say and nobody typed.
    """
    groups = chosen_groups(arguments)
    name = opened.recipe["name"]
    if "experiment" in groups:
        raise UserError(f"experiment={groups['experiment']}: not with resume=; type the keys that are to change")
    if groups.get("recipe", name) != name:
        raise UserError(_contradiction(opened, "recipe", name, groups["recipe"]))

    amended = opened.recipe
    sections = _composed(arguments, name)
    if not opened.ours:  # Multiflow's says little of our data section: complete it, so that all of it can be typed
        amended = amended | {
            "data": merge(_composed([f"data={amended['data']['kind']}"], name)["data"], amended["data"])
        }
    for group in groups.keys() - {"recipe", *RUN_KEYS}:
        section = lookup(sections, group.replace("/", "."))
        if group not in ("data", "kernels") and not group.startswith("model/"):
            kept = lookup(amended, group.replace("/", "."))
            section = kept | {key: section[key] for key in _telling_keys(group)}
        amended = _with_section(amended, group.split("/"), section)
    for key, value in typed_overrides(arguments).items():
        if isinstance(value, str) and "${" in value:
            raise UserError(f"{key}={value}: with resume= give the value itself, not a reference")
        if key in OF_THE_MACHINE:  # whatever a later version has written there
            amended = amended | {key: value}
        elif key.split(".")[0] not in RUN_KEYS:
            try:
                amended = merge(amended, {key: value})
            except UserError as error:
                if isinstance(opened.recipe.get(key.split(".")[0]), dict):
                    raise
                raise _with_cure(error, opened) from None  # a section that is none
    if missing := [key for key, value in leaves(amended) if value == "???"]:
        raise UserError(f"{missing[0]} is missing: give {missing[0]}=...")

    recipe = _checked(amended, opened)
    for key, old, new in changes(opened.recipe, recipe):
        if key == "name" or key.startswith("model."):
            raise UserError(_contradiction(opened, key, old, new))
    return recipe


def _checked(amended: dict, opened: Opened) -> Recipe:
    """Raises UserError, with the cure where the checkpoint's machine had what this one does not know."""
    try:
        return parse_recipe(amended)
    except UserError as error:
        raise _with_cure(error, opened) from None


def _with_cure(error: UserError, opened: Opened) -> UserError:
    """The error, and what mends it where it is about what belongs to a machine."""
    for section, cure in OF_THE_MACHINE.items():
        if re.search(rf"(^|unknown key ){section}\b", str(error)):
            return UserError(f"resume={opened.path}: {error}: {cure}")
    return error


def changes(old: dict, new: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of all in which a run's recipe differs from the checkpoint's."""
    return differences(old, new.model_dump(mode="json"))


def _composed(arguments: Sequence[str], name: str) -> dict:
    """What the groups typed stand for, under the checkpoint's recipe where there still is one of its name."""
    chosen = [text for text in arguments if text.partition("=")[0] in options() and not text.startswith("recipe=")]
    under = [f"recipe={name}"] if name in options().get("recipe", ()) else []
    return compose("train", [*under, *chosen], partial=True)


def _telling_keys(group: str) -> list[str]:
    """The keys by which the options of a group differ: `trainer=cpu` means an accelerator, not the rest of its file."""
    files = [yaml.safe_load((RECIPES / group / f"{option}.yaml").read_text()) for option in options()[group]]
    return [key for key in files[0] if any(file.get(key) != files[0][key] for file in files)]


def _with_section(config: dict, path: Sequence[str], section: Any) -> dict:
    head, *rest = path
    return config | {head: _with_section(config[head], rest, section) if rest else section}


def _contradiction(opened: Opened, key: str, old: Any, new: Any) -> str:
    return (
        f"{key}={new} contradicts the checkpoint, which has {old}: leave it out, or start a new run from its weights by"
        f" weights={opened.path} in place of resume="
    )
