"""The options of self-consistency, for a command that refolds designs."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from app.config.validate import parse
from app.errors import UserError
from app.evaluation.refold import RefoldSettings
from app.evaluation.refold.registry import PLUGINS, Wanted, option

_DEFAULTS = {name: field.default for name, field in RefoldSettings.model_fields.items()}


def with_refold_options(command: Callable) -> Callable:
    """A command that takes `refold: RefoldSettings`, with an option in its place for each setting and plug-in."""
    signature = inspect.signature(command, eval_str=True)
    options = [*map(_of_plugin, PLUGINS.items()), *map(_of_setting, _SETTINGS.items())]
    others = [one for name, one in signature.parameters.items() if name != "refold"]

    @wraps(command)
    def wrapped(**given: Any) -> Any:
        own = {one.name: given.pop(one.name) for one in options}
        return command(**given, refold=settings_of(own))

    wrapped.__signature__ = signature.replace(parameters=[*others, *options])
    wrapped.__annotations__ = {one.name: one.annotation for one in (*others, *options)}
    return wrapped


def settings_of(given: dict[str, Any]) -> RefoldSettings:
    """The settings that options by these names make. Raises UserError for values that cannot be, a device that is not
    here, and weights that were named and are not there, or are a file for a folder."""
    from app.devices import choose  # torch: only for commands that need it

    weights = {name: given[name] for name in PLUGINS if given.get(name) is not None}
    for name, path in weights.items():
        if problem := _problem(path.expanduser(), PLUGINS[name].metavar):
            raise UserError(f"{option(name)} {path}: {problem}; give {PLUGINS[name].what}")
    rest = {setting: given[name] for name, (setting, *_) in _SETTINGS.items() if name in given}
    settings = parse(RefoldSettings, {"weights": weights, **rest})
    choose(settings.device, option("device"))
    return settings


def _problem(path: Path, wanted: str) -> str:
    """Said before the work: a plug-in would find out after it, and then only leave its columns out."""
    if not path.exists():
        return "there is none"
    if wanted == "FOLDER":
        return "" if path.is_dir() else "not a folder"
    return "" if path.is_file() else "not a file"


_SETTINGS = {
    "sequences": ("sequences", int, "By inverse folding, for each design."),
    "temperature": ("temperature", float, "Of inverse folding."),
    "longest": ("longest", int | None, "Residues; longer designs are not refolded."),
    "refold_seed": ("seed", int, "Of inverse folding, mixed with each design's id."),
    "device": ("device", str, "Refold on auto, cpu, cuda or mps."),
}
"""Option -> setting, type, help."""


def _of_plugin(item: tuple[str, Wanted]) -> inspect.Parameter:
    name, wanted = item
    told = typer.Option(option(name), metavar=wanted.metavar, help=f"{wanted.what}.")
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, told]
    )


def _of_setting(item: tuple[str, tuple[str, Any, str]]) -> inspect.Parameter:
    name, (setting, kind, told) = item
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=_DEFAULTS[setting],
        annotation=Annotated[kind, typer.Option(option(name), help=told)],
    )
