"""Checking plain data against a pydantic model, with errors that a user can act on."""

from __future__ import annotations

import textwrap
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from app.config.keys import did_you_mean, entries, one_line
from app.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], data: dict[str, Any], where: str = "") -> Model:
    """`data` as a `model`. where: the dotted key of `data` in the whole config, "" for the whole.

    Raises UserError: one line that names, for each fault, the dotted key, what was given and what is accepted.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults: dict[str, list[str]] = {}  # a union reports each of its members: gather what they say of a value
        for fault in error.errors(include_url=False):
            subject, complaint = _describe(model, data, where, fault)
            if complaint not in faults.setdefault(subject, []):
                faults[subject].append(complaint)
        raise UserError("; ".join(f"{subject} {' or '.join(said)}" for subject, said in faults.items())) from None


def _describe(model: type[BaseModel], data: Any, where: str, fault: Any) -> tuple[str, str]:
    """(the key and what was given, what is wrong with it) of one of pydantic's faults."""
    path = _path(data, fault["loc"], fault["type"])
    key = ".".join([*filter(None, [where]), *path]) or "the config"
    if fault["type"] == "missing":
        return key, f"is missing: give {key}=..."
    if fault["type"] == "extra_forbidden":
        fields = _fields(model, path[:-1])
        return key, f"is unknown: {did_you_mean(path[-1], fields)}known here: {', '.join(fields)}"
    said = one_line(fault["msg"])
    if fault["type"] in ("value_error", "assertion_error"):  # a validator's own words
        return f"{key}:", said.partition(", ")[2]
    if fault["type"] in ("model_type", "dict_type"):
        said = "a section of keys"
    if fault["type"] in ("bool_parsing", "bool_type"):
        said = "true or false"
    return f"{key}={textwrap.shorten(repr(fault['input']), 80)}: wanted", said.removeprefix("Input should be ")


def _path(data: Any, loc: tuple, kind: str) -> list[str]:
    """`loc` less the parts that are pydantic's own, not the data's: the names of union members."""
    path = []
    for place, part in enumerate(loc):
        children = dict(entries(data)) if isinstance(data, dict | list) else {}
        if str(part) in children:
            data = children[str(part)]
            path.append(str(part))
        elif kind == "missing" and place == len(loc) - 1:
            path.append(str(part))
    return path


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    """The field names of the model that `path` leads to; list indices and free keys on the way are passed over."""
    for name in path:
        if name in model.model_fields:
            inner = _model_in(model.model_fields[name].annotation)
            if inner is None:
                return []
            model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `Stage`, `Stage | None`, `list[Stage]`, `dict[str, Stage]`, the first where there are several."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
