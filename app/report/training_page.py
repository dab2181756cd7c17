"""The page of a training run: what metrics.csv says, drawn; its recipe, its data and what it was computed with."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from app.errors import UserError
from app.report.page import Figure, Page
from app.report.panels import FROM_ZERO, LOG_SCALE, label, panels
from app.report.plots import Plot, lines
from app.report.words import duration, flat, in_words, number

METRICS, SUMMARY, RECIPE, MACHINE = "metrics.csv", "summary.json", "recipe.yaml", "machine.yaml"

_BROKEN = (OSError, ValueError, RecursionError, yaml.YAMLError)
_SKIPPED = ("skipped_nonfinite", "skipped_oom", "dropped_examples")
_HEADINGS = {"loss": "Losses", "validation": "Losses", "designs": "Validation", "folding": "Validation"}
_TITLES = {"lr": "learning rate", "memory_mb": "memory, MB", "mfu": "share of the device's peak"}


def is_training(path: Path) -> bool:
    return (path / METRICS).exists() or (path / RECIPE).exists()


def page_of(path: Path) -> Page:
    """Raises UserError where metrics.csv cannot be read; whatever else is missing or damaged is left out and named."""
    notes: list[str] = []
    summary = _read(path / SUMMARY, json.loads, notes)
    recipe = _read(path / RECIPE, yaml.safe_load, notes)
    machine = _read(path / MACHINE, yaml.safe_load, notes)
    page = Page(path.resolve().name, _subtitle(recipe, machine), _figures(summary), notes=notes)
    page.plots = _plots(_metrics(path / METRICS))
    if not page.plots:
        notes.append(f"{METRICS} has no numbers yet")
    data, rest = recipe.get("data"), {key: value for key, value in recipe.items() if key != "data"}
    groups = [("Data", flat(data)), ("Recipe", flat(rest)), ("Made with", flat(machine)), ("Summary", flat(summary))]
    page.provenance = [(title, rows) for title, rows in groups if any(key for key, _ in rows)]
    return page


def _metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """By column, (step, value) of the lines that have one. A last line that is being written may be cut off."""
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = [row for row in csv.DictReader(file, restval="", restkey="") if (row.get("step") or "").isdigit()]
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); mend or move the file") from None
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, text in row.items():
            if name and name != "step" and (value := _number(text)) is not None:
                found.setdefault(name, []).append((float(row["step"]), value))
    return found


def _plots(series: Mapping[str, list[tuple[float, float]]]) -> list[tuple[str, list[Plot]]]:
    groups: dict[str, list[Plot]] = {}
    for title, columns in panels(list(series)).items():
        known = {label(title, name): series[name] for name in columns if series.get(name)}
        if known:
            heading = _HEADINGS.get(title) or ("Losses by time" if "by time" in title else "Optimizer and hardware")
            heading = "Validation" if title.startswith("designs") else heading
            name = _TITLES.get(title, in_words(title))
            plot = lines(name, known, "step", title in LOG_SCALE, title in FROM_ZERO)
            groups.setdefault(heading, []).append(plot)
    return list(groups.items())


def _subtitle(recipe: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    data = recipe.get("data")
    told = {
        "recipe": recipe.get("name"),
        "data": data.get("kind") if isinstance(data, Mapping) else None,
        "on": machine.get("device"),
    }
    return " · ".join(["training", *(f"{word} {name}" for word, name in told.items() if isinstance(name, str))])


def _figures(summary: Mapping[str, Any]) -> list[Figure]:
    counts = [name for name in ("steps", "epochs", "residues_seen") if name in summary]
    figures = [Figure(in_words(name), number(summary[name])) for name in counts]
    best = summary.get("best")
    if isinstance(best, Mapping) and "value" in best:
        figures.append(
            Figure(
                f"best {in_words(str(best.get('metric', '')))}",
                number(best["value"]),
                f"step {number(best.get('step'))}",
                "good",
            )
        )
    if isinstance(seconds := summary.get("seconds"), int | float) and math.isfinite(seconds):
        figures.append(Figure("of training", duration(seconds)))
    skipped = {name: summary[name] for name in _SKIPPED if isinstance(summary.get(name), int)}
    if skipped:
        note = ", ".join(f"{count:,} {in_words(name)}" for name, count in skipped.items() if count)
        total = sum(skipped.values())
        figures.append(Figure("skipped or dropped", f"{total:,}", note, "bad" if total else ""))
    return figures


def _read(path: Path, parse, notes: list[str]) -> Mapping[str, Any]:
    if not path.exists():
        notes.append(f"no {path.name}")
        return {}
    try:
        found = parse(path.read_text(encoding="utf-8", errors="replace"))
    except _BROKEN:
        notes.append(f"{path.name} is damaged")
        return {}
    return found if isinstance(found, Mapping) else {}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
