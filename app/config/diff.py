"""What differs between two configs, and one config amended by changes to keys that it has."""

from __future__ import annotations

import copy
from typing import Any

from app.config.keys import Section, did_you_mean, dotted_keys, entries, lookup
from app.errors import UserError


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


ABSENT: Any = _Absent()  # stands in `differences` for a key that one side lacks


def differences(old: dict, new: dict) -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every leaf that differs, in the order of `old`, then of `new`.

    A key that one side lacks shows as ABSENT there. Lists of different length are compared whole. 1 and True, 1 and 1.0
    differ; NaN equals NaN.
    """
    return list(_differences(old, new, ""))


def _differences(old: Section, new: Section, prefix: str):
    before, after = dict(entries(old)), dict(entries(new))
    for name in before | after:
        a, b = before.get(name, ABSENT), after.get(name, ABSENT)
        both_dicts = isinstance(a, dict) and isinstance(b, dict)
        both_lists = isinstance(a, list) and isinstance(b, list) and len(a) == len(b)
        if both_dicts or both_lists:
            yield from _differences(a, b, f"{prefix}{name}.")
        elif not same(a, b):
            yield f"{prefix}{name}", a, b


def same(a: Any, b: Any) -> bool:
    """Equality that tells types apart, to any depth, and holds NaN equal to itself."""
    if isinstance(a, dict | list) and type(a) is type(b):
        return len(a) == len(b) and not any(_differences(a, b, ""))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def merge(base: dict, changes: dict[str, Any]) -> dict:
    """A copy of `base` with the values at the dotted keys of `changes` set, in their order.

    A dict given for a section changes the keys that it names and leaves the rest; a list replaces a list; None switches
    a section off. Raises UserError for a key that `base` lacks and for a plain value given for a section.
    """
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        _set(merged, key, value)
    return merged


def _set(config: dict, key: str, value: Any) -> None:
    try:
        current = lookup(config, key)
    except KeyError as found:
        raise UserError(f"unknown key {key}: {_hint(config, key, found.args[0])}") from None
    if isinstance(current, dict) and current and value is not None:
        if not isinstance(value, dict):
            raise UserError(f"{key} is a section, not a value: give one of its keys ({', '.join(map(str, current))})")
        for name, inner in value.items():
            _set(config, f"{key}.{name}", inner)
        return
    parent_key, _, name = key.rpartition(".")
    parent = lookup(config, parent_key) if parent_key else config
    if isinstance(parent, list):
        parent[int(name)] = copy.deepcopy(value)
    else:
        parent[next(k for k in parent if str(k) == name)] = copy.deepcopy(value)


def _hint(config: dict, key: str, found: str) -> str:
    """For an unknown key of which only `found` exists: keys of that name elsewhere, else what there is at `found`."""
    elsewhere = [other for other in dotted_keys(config) if other.rpartition(".")[2] == key.rpartition(".")[2]]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere[:3])}?"
    section = lookup(config, found) if found else config
    if not isinstance(section, dict | list):
        return f"{found} is a value and has no keys"
    names = [name for name, _ in entries(section)]
    missing = key.removeprefix(f"{found}.").partition(".")[0]
    return f"{did_you_mean(missing, names)}{found or 'the top level'} has {', '.join(names) or 'no keys'}"
