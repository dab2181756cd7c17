"""From the command line to a plain, resolved config: Hydra chooses the recipes' files, the typed values go on top.

Only Hydra's compose API is used; it writes nothing. Every problem is a UserError of one line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from app.config.diff import ABSENT, differences, merge, same
from app.config.keys import did_you_mean, leaves, lookup, one_line
from app.config.overrides import RECIPES, CommandLine, chosen_groups, options, read, typed_overrides
from app.config.stages import with_block_defaults
from app.errors import UserError

__all__ = ["chosen_groups", "compose", "options", "typed_overrides"]

MISSING = "???"
DEEPEST = 50  # levels of nesting; deeper means sections that refer to each other
# A reference to another setting, relative ones (leading dots) and list indices included. No resolver (oc.env, now, ...)
# is ever run: what a recipe or a command line says may not read the environment.
_REFERENCE = re.compile(r"\$\{[\w.\-\[\]]+\}")


def compose(root: str, overrides: Sequence[str], recipes: Path | None = None, *, partial: bool = False) -> dict:
    """The config of `recipes/<root>.yaml` under the command line, as plain dicts, lists and scalars.

    root: "train" or "infer". overrides: `key=value` and `group=option` arguments. partial: leave mandatory values that
    nobody gave as "???" in place of raising, for a caller that fills them from elsewhere (a checkpoint).

    Raises UserError: what `overrides.read` refuses; a group that this root does not choose; an unknown key; a missing
    mandatory value; a bad reference; any use of a resolver; an override that a later one undoes.
    """
    recipes = recipes or RECIPES
    typed = read(overrides, recipes)
    # Twice: so that a block's default can be typed over, and for stages that are themselves typed.
    unresolved = with_block_defaults(_choose(root, typed, recipes), recipes)
    _refuse_mistyped_group(unresolved, typed.values, recipes)
    unresolved = with_block_defaults(merge(unresolved, typed.values), recipes)
    for key, value in leaves(unresolved):
        if isinstance(value, str) and "${" in _REFERENCE.sub("", value):
            raise UserError(f"{key}={value}: only references to other settings are read, as in ${{seed}}")
    if not partial:
        _refuse_missing(unresolved)
    resolved = _plain(OmegaConf.create(unresolved))
    _verify(resolved, typed.values)
    return resolved


def _choose(root: str, typed: CommandLine, recipes: Path) -> dict:
    """Hydra's part: follow the defaults lists with the groups typed. References and "???" stay as they are."""
    composed = _hydra(root, typed.groups, recipes)
    config, taken = _contents(composed), _choices(composed)
    for group, option in typed.groups.items():
        if isinstance(option, str) and taken.get(group) != option:  # Hydra records no lists
            raise UserError(f"{group}={option} has no effect: {taken.get(group)} is chosen in its place")
    named = {group: option for group, option in typed.groups.items() if not _is_global(group, option, recipes)}
    if named:
        rest = {group: option for group, option in typed.groups.items() if group not in named}
        unasked = _choices(_hydra(root, rest, recipes))
        for group, option in named.items():
            _refuse_overwritten(config, typed, recipes, group, unasked.get(group), option)
    return config


def _is_global(group: str, option: str | list[str], recipes: Path) -> bool:
    """Whether the option's file is about the whole config (a recipe), not about a section of its own."""
    return isinstance(option, list) or "@package _global_" in (recipes / group / f"{option}.yaml").read_text()


def _refuse_overwritten(
    config: dict, typed: CommandLine, recipes: Path, group: str, unasked: str | None, option: str
) -> None:
    """A typed option is refused where a recipe writes over what tells it from the option it takes the place of."""
    replaced = _contents(_hydra(f"{group}/{unasked}", {}, recipes)) if unasked else {}
    chosen = _contents(_hydra(f"{group}/{option}", {}, recipes))
    for key, _, wanted in differences(replaced, chosen):
        if wanted is ABSENT or any(f"{key}.".startswith(f"{own}.") for own in typed.values):
            continue
        try:
            stands = same(lookup(config, key), wanted)
        except KeyError:
            stands = False
        if not stands:
            raise UserError(f"{group}={option} has no effect on {key}: a recipe sets that; say which with {key}=...")


def _spelled(option: str | list[str]) -> str:
    return option if isinstance(option, str) else f"[{','.join(option)}]"


def _hydra(root: str, groups: dict[str, str | list[str]], recipes: Path) -> DictConfig:
    """Hydra's composition of a file of the recipes, its own section included."""
    overrides = tuple(f"{group}={_spelled(option)}" for group, option in groups.items())
    try:
        return _composed(root, overrides, recipes.resolve(), _state(recipes))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        for group in groups:
            if f"Could not override '{group}'" in str(error):
                offered = ", ".join(_choices(_hydra(root, {}, recipes)))
                raise UserError(f"{group} is not chosen for {root}; its groups are: {offered}") from None
        raise UserError(f"the recipes for {root} do not compose: {one_line(error)}") from None


@cache  # Hydra takes a tenth of a second, and a run asks for the same files several times
def _composed(root: str, overrides: tuple[str, ...], recipes: Path, _files: frozenset) -> DictConfig:
    with initialize_config_dir(config_dir=str(recipes), version_base="1.3"):
        composed = hydra_compose(root, list(overrides), return_hydra_config=True)
    OmegaConf.set_readonly(composed, True)
    return composed


def _state(recipes: Path) -> frozenset[tuple[Path, int, int]]:
    """What tells whether files of the recipes have changed."""
    state = set()
    for file in recipes.rglob("*.yaml"):
        with suppress(OSError):  # an editor's dangling link, a file renamed just now: Hydra says what it lacks
            found = file.stat()
            state.add((file, found.st_mtime_ns, found.st_size))
    return frozenset(state)


def _contents(composed: DictConfig) -> dict:
    return {key: value for key, value in OmegaConf.to_container(composed).items() if key != "hydra"}


def _choices(composed: DictConfig) -> dict[str, Any]:
    choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    return {group: option for group, option in choices.items() if not group.startswith("hydra/")}


def _refuse_mistyped_group(config: dict, values: dict[str, Any], recipes: Path) -> None:
    """`recpie=tiny` is no key, and what it was meant to be is no key either: merging could not suggest it."""
    for key in values:
        if key not in config and "." not in key and (similar := did_you_mean(key, options(recipes))):
            raise UserError(f"unknown key {key}: {similar.strip()}")


def _refuse_missing(config: dict) -> None:
    missing = [key for key, value in leaves(config) if value == MISSING]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(f"{', '.join(missing)} {verb} missing: give {' '.join(f'{key}=...' for key in missing)}")


def _plain(section: DictConfig | ListConfig, prefix: str = "") -> dict | list:
    """References followed, containers made plain. A value that is missing, or refers to one that is, becomes "???"."""
    if prefix.count(".") > DEEPEST:
        raise UserError(f"{'.'.join(prefix.split('.')[:3])}: its references run in a circle")

    def value(name: Any) -> Any:
        try:
            child = section[name]
        except (MissingMandatoryValue, InterpolationToMissingValueError):
            return MISSING
        except OmegaConfBaseException as error:
            written = OmegaConf.to_container(section)[name]
            raise UserError(f"{prefix}{name}={written}: bad reference: {str(error).splitlines()[0]}") from None
        return _plain(child, f"{prefix}{name}.") if isinstance(child, DictConfig | ListConfig) else child

    if isinstance(section, ListConfig):
        return [value(index) for index in range(len(section))]
    return {name: value(name) for name in section}


def _verify(resolved: dict, typed: dict[str, Any]) -> None:
    """Every typed value stands in the result; one that a later one undid does not."""
    for key, value in typed.items():
        for inner, wanted in leaves({key: value}):
            if isinstance(wanted, str) and "${" in wanted:
                continue
            try:
                stands = same(lookup(resolved, inner), wanted)
            except KeyError:
                stands = False
            if not stands:
                raise UserError(f"{key} has no effect: a later override undoes {inner}={wanted}; give one of them")
