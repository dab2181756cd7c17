"""How designs come about, step by step: means over the tables that `step_records=true` leaves."""

import csv
import math
from collections import defaultdict
from pathlib import Path

from app.report.designs import Folder
from app.report.plots import Plot, lines
from app.report.words import in_words

DESIGNS = 200
"""Most tables that are read; the first ones count."""

STEP = "step"
_AXES = ("structure_t", "token_t")  # follow from the step


def plots(folder: Folder) -> list[Plot]:
    """A line for each column of numbers: its mean over designs by the step, and where designs lie apart, the lowest and
    the highest. A table that cannot be read is left out."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    files = [design.steps for design in folder.designs if design.steps is not None][:DESIGNS]
    for file in files:
        for step, name, value in _numbers(file):
            found[name][step].append(value)
    return [
        lines(
            in_words(name),
            {
                told: [(float(step), take(values)) for step, values in sorted(by_step.items())]
                for told, take in (("mean", _mean), ("lowest", min), ("highest", max))
            },
            "step",
        )
        for name, by_step in found.items()
    ]


def _numbers(file: Path) -> list[tuple[int, str, float]]:
    try:
        with file.open(newline="", encoding="utf-8", errors="replace") as opened:
            rows = list(csv.DictReader(opened, restval="", restkey=""))
        return [
            (int(row[STEP]), name, float(text))
            for row in rows
            for name, text in row.items()
            if name and name not in (STEP, *_AXES) and text and math.isfinite(float(text))
        ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
