"""The page of a folder of designs."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.files.manifest import MANIFEST
from app.report import distributions, steps
from app.report.designs import Folder, read_folder
from app.report.distributions import DRAWN_TOGETHER
from app.report.explorer import explorer
from app.report.page import Figure, Page, Table
from app.report.pictures import take_pictures
from app.report.words import flat, in_words, number

_OWN_KEYS = (
    "designs", "requested", "done", "failed", "settings", "format", "task", "seed", "skipped", "warnings", "files",
    "sha256",
)  # fmt: skip
_SET = {
    "unique_sequences": "unique sequences",
    "diversity.clusters": "folds, as clusters",
    "novelty.new_folds": "share of new folds",
    "designable.designs": "designable",
    "designable.clusters": "folds that are designable",
}
"""Keys of the evaluation's set that stand at the top, and what they are called there."""

_SUMMARY = ("median", "mean", "low", "high", "n")


def page_of(path: Path) -> Page:
    """Raises UserError as `read_folder`."""
    folder = read_folder(path)
    pictures = take_pictures(folder)
    explored = explorer(folder, pictures)
    page = Page(path.resolve().name, _subtitle(folder), _figures(folder), explored)
    if plots := distributions.of_structures(folder, pictures):
        page.plots.append(("Distributions", plots))
    if plots := steps.plots(folder):
        page.plots.append(("The way from noise", plots))
    if plots := distributions.of_measures(folder):
        page.plots.append(("Measures", plots))
    page.tables = _tables(folder)
    page.provenance = _provenance(folder)
    page.notes = [*folder.notes, *pictures.notes]
    return page


def _subtitle(folder: Folder) -> str:
    manifest, settings = folder.manifest, _mapping(folder.manifest.get("settings"))
    if not manifest:
        return f"{len(folder.designs):,} structures"
    told = [str(manifest.get("task", "")).replace("_", " ")]
    told += [f"{settings['steps']} steps"] if "steps" in settings else []
    sampler = _mapping(settings.get("sampler")).get("name")
    told += [f"sampler {sampler}"] if sampler else []
    told += [f"seed {manifest['seed']}"] if "seed" in manifest else []
    return " · ".join(filter(None, told))


def _figures(folder: Folder) -> list[Figure]:
    if not folder.manifest:
        return [Figure("structures", f"{len(folder.designs):,}"), *_of_the_set(folder)]
    counts = Counter(design.status for design in folder.designs)
    waiting = sum(design.error.startswith("not run") for design in folder.designs)
    flagged = sum(bool(design.flags) for design in folder.designs)
    figures = [
        Figure("requested", f"{len(folder.designs):,}"),
        Figure("done", f"{counts['done']:,}", tone="good" if counts["done"] else ""),
        Figure(
            "failed",
            f"{counts['failed']:,}",
            f"{waiting:,} not run" if waiting else "",
            "bad" if counts["failed"] else "",
        ),
        Figure("flagged", f"{flagged:,}", tone="bad" if flagged else ""),
    ]
    return figures + _of_the_set(folder)


def _of_the_set(folder: Folder) -> list[Figure]:
    """What the evaluation says of the set as a whole, in short."""
    told = dict(flat(_mapping(folder.summary.get("set"))))
    return [Figure(label, told[key]) for key, label in _SET.items() if key in told]


def _tables(folder: Folder) -> list[Table]:
    tables = []
    metrics = _mapping(folder.summary.get("metrics"))
    rows = [
        [in_words(str(name)), *(number(one.get(key)) for key in _SUMMARY)]
        for name, one in metrics.items()
        if isinstance(one, Mapping) and one.get("n") != 0 and not str(name).startswith(DRAWN_TOGETHER)
    ]
    if rows:
        note = "low and high: bounds of the bootstrap interval, as docs/metrics.md has it"
        tables.append(Table("Evaluation", ("", *_SUMMARY), rows, note))
    if rows := flat(_mapping(folder.summary.get("set"))):
        tables.append(Table("The set as a whole", ("", ""), [[_key(key), value] for key, value in rows]))
    if problems := _list(folder.summary.get("problems")):
        tables.append(Table("Could not be evaluated", ("",), [[str(problem)] for problem in problems[:50]]))
    if rows := flat(_mapping(folder.summary.get("skipped"))):
        tables.append(Table("Not measured", ("", "why"), [[in_words(key), value] for key, value in rows]))
    flags = Counter(flag.partition(":")[0] for design in folder.designs for flag in design.flags)
    if flags:
        rows = [[flag, f"{count:,}"] for flag, count in flags.most_common(20)]
        more = f"{len(flags) - 20:,} further kinds" if len(flags) > 20 else ""
        tables.append(Table("Flags", ("", "designs"), rows, more))
    errors = [[design.id, design.error] for design in folder.designs if design.error]
    if errors:
        more = f"and {len(errors) - 50:,} more: {MANIFEST}" if len(errors) > 50 else ""
        tables.append(Table("Failed", ("", "why"), errors[:50], more))
    skipped = [one for one in _list(folder.manifest.get("skipped")) if isinstance(one, Mapping)]
    if skipped:
        rows = [[str(one.get("input", "")), str(one.get("reason", ""))] for one in skipped[:50]]
        tables.append(Table("Inputs left out", ("", "why"), rows))
    if warnings := _list(folder.manifest.get("warnings")):
        tables.append(Table("Warnings", ("",), [[str(warning)] for warning in warnings]))
    return tables


def _provenance(folder: Folder) -> list[tuple[str, list[tuple[str, str]]]]:
    manifest = folder.manifest
    groups = [("Settings", flat(_mapping(manifest.get("settings"))))]
    plain = {}
    for key, value in manifest.items():
        if key in _OWN_KEYS:
            continue
        if isinstance(value, Mapping):
            groups.append((in_words(key).capitalize(), flat(value)))
        else:
            plain[key] = value
    groups.insert(1, ("Made with", flat(plain)))
    groups.append(("Evaluation", flat(_mapping(folder.summary.get("provenance")))))
    return [(title, rows) for title, rows in groups if rows]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _key(key: str) -> str:
    return in_words(key.replace(".", ": "))
