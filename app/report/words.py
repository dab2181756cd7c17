"""Names, numbers and nested settings as a person would write them."""

from collections.abc import Iterator, Mapping
from typing import Any

Rows = list[tuple[str, str]]


def in_words(name: str) -> str:
    """ca_ca_valid -> ca ca valid"""
    return name.replace("_", " ")


def number(value: Any) -> str:
    """Four digits of a float; whole numbers with separators; all else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """2 h 05 min, 3 min 20 s, 12 s"""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def flat(settings: Any, key: str = "") -> Rows:
    """Nested settings as rows of a dotted key and its value."""
    return list(_flat(settings, key)) if settings else []


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{key}.{place}" if key else str(place))
    elif isinstance(value, list | tuple):
        yield key, ", ".join(map(str, value))
    else:
        yield key, "–" if value is None or value == {} else str(value)
