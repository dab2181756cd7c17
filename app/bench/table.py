"""The rows for people: next to the reference, and by length which backend is the best."""

from collections.abc import Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from app.bench.case import AUTO, REFERENCE
from app.bench.operation import TRAIN
from app.bench.run import Row

WIDTH = 150
"""Columns of the terminal that tables are made for, whatever it has: figures cut short are of no use."""

TOLERATED = 1.1
"""`auto` may take so many times as long as the best backend before it is said to have chosen wrongly."""


def table(rows: Sequence[Row]) -> Table:
    """All rows; beside time and memory, how many times faster than the reference and with what share of its memory."""
    made = Table(
        Column("case", no_wrap=True),
        Column("type", no_wrap=True),
        Column("N", justify="right"),
        Column("batch", justify="right"),
        Column("backend", no_wrap=True),
        *(Column(title, justify="right", no_wrap=True) for title in ("time", "speed", "memory", "share", "error")),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for _, group in groupby(rows, key=_place):
        beside = list(group)
        reference = next((row for row in beside if row.backend == REFERENCE), None)
        for row in beside:
            made.add_row(
                *(row.case, row.dtype, str(row.length), str(row.batch), row.backend),
                duration(row.seconds),
                _ratio(reference and reference.seconds, row.seconds, "{:.2f}x"),
                size(row.peak_mb),
                _ratio(row.peak_mb, reference and reference.peak_mb, "{:.2f}"),
                "" if row.max_error is None else f"{row.max_error:.1e}",
            )
        made.add_section()
    return made


def best(rows: Sequence[Row], chose: Sequence[str]) -> list[str]:
    """Where others than the reference and `auto` were measured: which is the fastest, and how `auto` compares."""
    found = []
    taken = {_place(row): words for row, words in zip(rows, chose, strict=True) if row.backend == AUTO}
    for place, group in groupby(rows, key=_place):
        seconds = {row.backend: row.seconds for row in group if row.seconds is not None}
        others = {name: value for name, value in seconds.items() if name != AUTO}
        if len(others) < 2 or AUTO not in seconds:
            continue
        name = min(others, key=others.__getitem__)
        ratio = seconds[AUTO] / others[name]
        told = f"{_said(place)}: {name} is best, {duration(others[name])}; auto {duration(seconds[AUTO])}"
        if ratio > TOLERATED:
            same = f"{place[0].removesuffix(TRAIN)} {name}" == taken[place]
            told += f", {ratio:.2f} times as long" + (" for the same backend" if same else ": TOO SLOW")
        found.append(told)
    return found


def choices(rows: Sequence[Row], chose: Sequence[str]) -> list[str]:
    """What `auto` took, at the places where it took the same together."""
    by_choice: dict[str, list[str]] = {}
    for row, words in zip(rows, chose, strict=True):
        if row.backend == AUTO and words:
            by_choice.setdefault(words, []).append(_said(_place(row)))
    return [f"auto took {words} in {', '.join(places)}" for words, places in by_choice.items()]


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def size(megabytes: float | None) -> str:
    return "not measured" if megabytes is None else f"{megabytes:,.0f} MB" if megabytes >= 10 else f"{megabytes:.1f} MB"


def _place(row: Row) -> tuple[str, str, int, str]:
    return row.case, row.dtype, row.length, row.device


def _said(place: tuple) -> str:
    return " ".join(map(str, place[:3]))


def _ratio(above: float | None, below: float | None, form: str) -> str:
    return form.format(above / below) if above and below else ""
