"""Dotted keys ("trainer.max_steps", "model.trunk.stages.0.depth") into nested plain dicts and lists."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from app.errors import UserError

Section = dict | list


DEEPEST, LARGEST = 32, 100_000
"""Levels of sections in sections that a config may have (eight repeats in one another take twenty), and what one level
may hold: sections that hold each other can mean any number."""


def refuse_too_deep(data: Any, where: str) -> None:
    """Raises UserError for data nested too deep or without end, before anything recurses into it."""
    level = [data]
    for _ in range(DEEPEST):
        inner = (child for item in level if isinstance(item, dict | list) for _, child in entries(item))
        level = list(itertools.islice(inner, LARGEST + 1))
        if not level:
            return
        if len(level) > LARGEST:
            break
    raise UserError(f"{where}: nested in more than {DEEPEST} levels, or too large: write it with fewer")


def entries(section: Section) -> Iterator[tuple[str, Any]]:
    """The direct children of a section, each with its name as text: a dict's keys or a list's indices."""
    items = section.items() if isinstance(section, dict) else enumerate(section)
    return ((str(name), value) for name, value in items)


def leaves(config: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key whose value is not a section; an empty dict or list counts as a value."""
    for name, value in entries(config):
        key = f"{prefix}{name}"
        if isinstance(value, dict | list) and value:
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def dotted_keys(config: Section, prefix: str = "") -> Iterator[str]:
    """Every dotted key, sections included, each section before what is in it."""
    for name, value in entries(config):
        yield f"{prefix}{name}"
        if isinstance(value, dict | list):
            yield from dotted_keys(value, f"{prefix}{name}.")


def lookup(config: Section, key: str) -> Any:
    """The value at a dotted key. Raises KeyError with the longest part of `key` that exists ("" if none does)."""
    value, found = config, []
    for name in key.split("."):
        children = dict(entries(value)) if isinstance(value, dict | list) else {}
        if name not in children:
            raise KeyError(".".join(found))
        value = children[name]
        found.append(name)
    return value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "did you mean a or b? " with the known names most like `word`, or "" where none is."""
    similar = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(similar)}? " if similar else ""


def one_line(message: object) -> str:
    """A library's message of several lines as one."""
    return " ".join(str(message).split())
