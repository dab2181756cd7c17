"""Reading the command line: which group options and which values the user typed.

Values follow Hydra's override grammar (numbers, true, null, 'quoted', [lists], {dicts}), save that paths are taken as
typed. Keys are read here, so that what Hydra would allow and Trunkline does not (+key, ~key, sweeps) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from app.config.keys import did_you_mean, one_line, refuse_too_deep
from app.errors import UserError

RECIPES = Path(__file__).resolve().parents[2] / "recipes"

# Values of these keys are paths: taken as typed, spaces, "=", ",", brackets and quotes included.
PATH_KEYS = (
    "out",
    "resume",
    "weights",
    "weights_boltz",
    "ckpt",
    "input",
    "data.path",
    "data.cache_dir",
    "esm.name",
    "model.esm.name",
)
PATH_ENDINGS = ("_path", ".path", "_dir", ".dir")

_KEY = re.compile(r"[A-Za-z_][\w-]*([./][\w-]+)*")


@dataclass(frozen=True)
class CommandLine:
    """What the user typed, in the order typed."""

    groups: dict[str, str | list[str]]  # group -> option; a list where several were chosen
    values: dict[str, Any]  # dotted key -> value


def read(overrides: Sequence[str], recipes: Path | None = None) -> CommandLine:
    """Parse `key=value` and `group=option` arguments; a key that is a folder of `recipes` is a group.

    Raises UserError for anything malformed, for +key and ~key, for a key or group given twice, for an option that the
    group lacks, and for a value that is not one value (a sweep).
    """
    known = options(recipes)
    line = CommandLine({}, {})
    for text in overrides:
        key, value = _split(text)
        if key in line.groups or key in line.values:
            raise UserError(f"{key} is given twice: give it once")
        if key in known:
            line.groups[key] = _option(key, value, known[key])
        elif "/" in key:
            raise UserError(f"{key} is no group of recipes; groups: {', '.join(known)}; keys have dots, not slashes")
        else:
            line.values[key] = parsed = _path(key, value) if is_path(key) else _value(key, value)
            refuse_too_deep(parsed, key)
            if ".stages." in key and key.endswith(".block"):
                raise UserError(
                    f"{key}: a stage of another block has other settings: give the whole list, as in"
                    f" '{key.rpartition('.stages.')[0]}.stages=[{{block: {parsed}, depth: 2}}]', or a named one"
                )
            if "." in key and (group := key.replace(".", "/")) in known and isinstance(parsed, str):
                raise UserError(f"{key} is a section: choose a named one as {group}={parsed}")
    return line


def typed_overrides(overrides: Sequence[str], recipes: Path | None = None) -> dict[str, Any]:
    """Dotted key -> value for every value (not group) on the command line; `${...}` references stay unresolved.

    Raises UserError as `read` does.
    """
    return read(overrides, recipes).values


def chosen_groups(overrides: Sequence[str], recipes: Path | None = None) -> dict[str, str | list[str]]:
    """Group -> option for every group on the command line: `{"recipe": "multiflow_legacy", "data": "structures"}`.

    Raises UserError as `read` does.
    """
    return read(overrides, recipes).groups


def options(recipes: Path | None = None) -> dict[str, list[str]]:
    """Every group of `recipes` with its options, both sorted. Raises UserError where there are no recipes."""
    recipes = recipes or RECIPES
    if not recipes.is_dir():
        raise UserError(f"no recipes at {recipes}: run from a checkout of Trunkline, installed with pip install -e .")
    found: dict[str, list[str]] = {}
    for file in sorted(recipes.rglob("*.yaml")):
        if (group := file.parent.relative_to(recipes).as_posix()) != ".":
            found.setdefault(group, []).append(file.stem)
    return found


def is_path(key: str) -> bool:
    return key in PATH_KEYS or key.endswith(PATH_ENDINGS)


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if key[:1] in ("+", "~"):
        raise UserError(f"{one_line(text)}: keys are not added (+) or removed (~): set one that exists, as key=value")
    if not equals:
        raise UserError(f"{text!r} is not an override: write key=value, without spaces around the =")
    if not _KEY.fullmatch(key):
        raise UserError(f"{key!r} is not a key: write key=value, as in trainer.max_steps=4 or model/trunk=NAME")
    return key, value


def _option(group: str, text: str, known: list[str]) -> str | list[str]:
    chosen = _value(group, text) if text.startswith("[") else text
    for option in chosen if isinstance(chosen, list) else [chosen]:
        if option not in known:
            similar = did_you_mean(str(option), known)
            raise UserError(f"{group}={option}: no such option; {similar}{group} is one of: {', '.join(known)}")
    return chosen


def _path(key: str, text: str) -> str | None:
    quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
    if quoted and text[0] not in text[1:-1]:  # the habit of Hydra's users: key="'a path'"
        text = text[1:-1]
    if not text.strip():
        raise UserError(f"{key}= names no path: write {key}=PATH, or leave it out")
    return None if text == "null" else text


def _value(key: str, text: str) -> Any:
    cure = f"quote it, as in \"{key}='...'\", or bracket a list, as in '{key}=[1,2]'"
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        value = override.value()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{key}={one_line(text)}: the value cannot be read ({one_line(error)}): {cure}") from None
    if override.is_sweep_override():
        raise UserError(f"{key}={text}: one value is wanted, not several to try: {cure}")
    return value
