"""The jobs of a sweep: Hydra's grammar says which values a key is to have, and every combination of them is a job."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from app.config.keys import one_line
from app.config.overrides import is_path, options
from app.errors import UserError

_LONGEST = 120  # characters of a folder's name; file systems take 255 bytes
_UNSAFE = re.compile(r"[^\w.+-]+")
_CHOICE = re.compile(r"choice\((.*)\)")
_PATHS = re.compile(r"""(?:^|,)\s*('[^']*'|"[^"]*"|[^,]*?)\s*(?=,|$)""")


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    swept: tuple[str, ...]  # the overrides that tell it from the others
    arguments: tuple[str, ...]  # train.py's, with `out` and `resume=auto`
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Sweep:
    folder: Path
    jobs: tuple[Job, ...]
    launcher: tuple[str, ...]  # what was typed of Hydra's launcher


def read_sweep(arguments: Sequence[str]) -> Sweep:
    """What `train.py --multirun` is asked for; the arguments come without that.

    A job's folder is named after what is swept, so that the same command finds its runs again, and one with more values
    those that were there before. Raises UserError for a sweep over nothing or over `out`, and for values that cannot be
    counted; what else is wrong with a job is for composing it to say.
    """
    launcher = tuple(text for text in arguments if text.startswith(("hydra.", "hydra/")))
    ours = [text for text in arguments if text not in launcher]
    out = _out(ours)
    resume = [text for text in ours if text.partition("=")[0] == "resume"]
    if any(text != "resume=auto" for text in resume):
        raise UserError(f"{resume[0]}: every job of a sweep goes on by itself, as with resume=auto: leave it out")
    choices = [_alternatives(text) for text in ours if text.partition("=")[0] not in ("out", "resume")]
    keys = [several[0].partition("=")[0] for several in choices if len(several) > 1]
    if not keys:
        raise UserError("--multirun: nothing is swept: give a key several values, as in optimizer.lr=1e-3,1e-4")
    jobs = []
    for chosen in itertools.product(*choices):
        swept = tuple(text for text, several in zip(chosen, choices, strict=True) if len(several) > 1)
        folder = out / _name(swept, keys)
        jobs.append(Job(swept, (*chosen, f"out={folder}", "resume=auto"), folder))
    for job in jobs:
        if sum(other.folder == job.folder for other in jobs) > 1:
            raise UserError(f"{' '.join(job.swept)}: twice in the sweep: give each value once")
    return Sweep(out, tuple(jobs), launcher)


def _out(arguments: Sequence[str]) -> Path:
    """The sweep's folder, of which every job has a part."""
    given = [text.partition("=")[2] for text in arguments if text.partition("=")[0] == "out"]
    if len(given) != 1 or given[0] in ("", "null"):
        raise UserError("--multirun: name one folder for the whole sweep, as out=FOLDER: each job has its own in it")
    if len(_paths(given[0])) > 1:
        raise UserError(f"out={given[0]}: out is not swept: name one folder, each job has its own in it")
    return Path(_unquoted(given[0]))


def _alternatives(text: str) -> list[str]:
    """`key=value` for every value that an argument tries; one that tries none, or cannot be read, as it is."""
    key, _, value = text.partition("=")
    if is_path(key):
        return [f"{key}={path}" for path in _paths(value)]
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        return [text]
    if not override.is_sweep_override():
        return [text]
    if not override.is_discrete_sweep():
        raise UserError(f"{text}: an interval has no end of values: give them, as in {key}=1,2 or {key}=range(1,4)")
    if override.value_type.name.startswith("GLOB"):
        if key not in (groups := options()):
            raise UserError(f"{text}: glob chooses among a group's options, and {key} is no group: {', '.join(groups)}")
        values = override.value().filter(groups[key])
    else:
        try:
            values = list(override.sweep_string_iterator())
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(
                f"{text}: cannot be read ({one_line(error)}): give the values in one list, as in {key}=choice(1,2,3)"
            ) from None
    if not values:
        raise UserError(f"{text}: there is no such value: nothing to sweep")
    return [f"{key}={one}" for one in values]


def _paths(value: str) -> list[str]:
    """Paths are taken as typed, as ever, but for commas between them and Hydra's `choice(...)` around them."""
    if os.path.lexists(value):
        return [value]
    chosen = _CHOICE.fullmatch(value)
    return _PATHS.findall(chosen[1] if chosen else value)


def _name(swept: Sequence[str], keys: Sequence[str]) -> str:
    """`recipe-tiny_lr-0.001`; with a digest where that is not all of it."""
    parts = [text.partition("=") for text in swept]
    shown = [f"{_short(key, keys)}-{'-'.join(filter(None, _UNSAFE.split(value)))}" for key, _, value in parts]
    name = "_".join(shown)
    if len(name) > _LONGEST or any(_UNSAFE.search(value) for _, _, value in parts):
        name = f"{name[:_LONGEST]}-{hashlib.sha256(chr(0).join(swept).encode()).hexdigest()[:8]}"
    return name


def _short(key: str, keys: Sequence[str]) -> str:
    """The last part of a key, where that tells it from the others."""
    ends = [re.split(r"[./]", other)[-1] for other in keys]
    end = re.split(r"[./]", key)[-1]
    return end if ends.count(end) == 1 else key.replace("/", ".")


def _is_quoted(text: str) -> bool:
    return len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""


def _unquoted(text: str) -> str:
    return text[1:-1] if _is_quoted(text) else text
