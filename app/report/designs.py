"""What a folder says of its designs: the manifest's records and the rows of the evaluation, as plain data.

Files are not trusted: whatever has another type than it should is left out or made into text, and no path leads out of
the folder.
"""

import csv
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import UserError
from app.evaluation.columns import printable
from app.evaluation.found import (
    ALTERED,
    EVALUATION,
    REPEATED,
    TRAJECTORIES,
    files_of,
    find_designs,
    is_altered,
    structure_of,
)
from app.evaluation.manifest import manifest_of
from app.files.json_object import json_object
from app.files.manifest import MANIFEST
from app.report.words import Rows, flat

TABLE, SUMMARY, STEPS = "designs.csv", "summary.json", "steps"

OWN = ("recovery", "ca_rmsd", "certainty")
"""Numbers that a manifest's record may have, in the order in which they are shown."""

ALREADY_TOLD = {"file", "task", "length", "chains", "sequence", "flags", "error"}
"""Columns of the evaluation's table that repeat the manifest."""


@dataclass
class Design:
    """One design. values: numbers, words, or why something was not measured, by the name of the column."""

    id: str
    status: str = "done"
    task: str = ""
    seed: str = ""
    length: int | None = None
    chains: dict[str, int] = field(default_factory=dict)
    sequence: str = ""
    error: str = ""
    flags: list[str] = field(default_factory=list)
    structure: Path | None = None
    path: Path | None = None  # the trajectory where the sampler was
    clean: Path | None = None  # and what the model took for the final protein
    values: dict[str, float | str] = field(default_factory=dict)
    details: Rows = field(default_factory=list)  # what is told of it and not compared
    steps: Path | None = None  # the table of its steps


@dataclass
class Folder:
    """A folder of designs. manifest: empty where the folder has none, as one of any structure files. summary: the
    evaluation's. notes: what could not be read."""

    path: Path
    designs: list[Design]
    manifest: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Names of all that was measured of any design."""
        return list(dict.fromkeys(name for design in self.designs for name in design.values))


def read_folder(path: Path) -> Folder:
    """A run's folder, or any folder of structure files, evaluated or not.

    Raises UserError: a manifest that is damaged, or a folder with neither a manifest nor a structure.
    """
    folder = Folder(path, [])
    folder.manifest = manifest_of(path, folder.notes.append)
    if folder.manifest:
        folder.designs = list(_first_of_each_id(_recorded(folder.manifest, path)))
    else:
        try:
            found, _ = find_designs(path)
        except UserError:
            raise UserError(
                f"{path}: no run of infer.py (no {MANIFEST}) or of train.py (no metrics.csv), and no structure files: "
                "name the out=... of a run, or a folder of structures"
            ) from None
        folder.designs = [Design(_text(one.id), structure=one.path) for one in found]
    _add_evaluation(folder)
    return folder


def _recorded(manifest: Mapping[str, Any], folder: Path) -> Iterator[Design]:
    for record in manifest["designs"]:
        if not isinstance(record, dict):
            continue
        files = [folder / name for name in files_of(record, folder)]
        structure = structure_of(record, folder)
        flags = record.get("flags", record.get("warning"))
        flags = [_text(flag) for flag in flags] if isinstance(flags, list) else [_text(flags)] if flags else []
        flags += [ALTERED] if structure and _is_altered(record, structure, folder) else []
        chains = record.get("chains")
        length = record.get("length")
        yield Design(
            id=_text(record.get("id")),
            status=_text(record.get("status")),
            task=_text(record.get("task", manifest.get("task"))),
            seed=_text(record.get("seed")),
            length=length if isinstance(length, int) else None,
            chains={_text(name): n for name, n in chains.items() if isinstance(n, int)}
            if isinstance(chains, dict)
            else {},
            sequence=_text(record.get("sequence")),
            error=_text(record.get("error")),
            flags=flags,
            structure=folder / structure if structure else None,
            path=_first(files, TRAJECTORIES, "_path.pdb"),
            clean=_first(files, TRAJECTORIES, "_clean.pdb"),
            steps=_first(files, STEPS, ".csv"),
            values={name: value for name in OWN if (value := _number(record.get(name))) is not None},
            details=_details(record),
        )


def _is_altered(record: Mapping[str, Any], name: str, folder: Path) -> bool:
    """Not where it cannot be read, which is told when it is to be drawn."""
    try:
        return is_altered(record, name, hashlib.sha256((folder / name).read_bytes()).hexdigest())
    except OSError:
        return False


def _first_of_each_id(designs: Iterable[Design]) -> Iterator[Design]:
    """The others have a card that says so, and nothing that would be taken for the first one's."""
    seen: set[str] = set()
    for design in designs:
        if design.id in seen:
            design = Design(design.id, design.status, design.task, design.seed, error=REPEATED)
        seen.add(design.id)
        yield design


def _details(record: Mapping[str, Any]) -> Rows:
    """Where it comes from, what was fixed, and how what was fixed meets what was designed."""
    told = [("input", _text(record.get("input")))]
    told += [(key.replace(".", " "), value) for key, value in flat(record.get("fixed"), "fixed")]
    told += [("note", _text(note)) for note in _list(record.get("notes"))]
    for junction in _list(record.get("junctions")):
        if isinstance(junction, dict):
            where = "–".join(map(_text, _list(junction.get("between"))))
            c_n, *angles = (_text(junction.get(key)) for key in ("c_n", "ca_c_n", "c_n_ca"))
            told.append((f"junction {where}", f"C–N {c_n} Å, CA–C–N {angles[0]}°, C–N–CA {angles[1]}°"))
    return [(label, text) for label, text in told if text]


def _first(files: list[Path], folder: str, end: str) -> Path | None:
    return next((file for file in files if file.parent.name == folder and file.name.endswith(end)), None)


def _add_evaluation(folder: Folder) -> None:
    table, summary = (folder.path / EVALUATION / name for name in (TABLE, SUMMARY))
    if table.exists():
        rows: dict[str, dict] = {}
        try:
            with table.open(newline="", encoding="utf-8", errors="replace") as file:
                for row in csv.DictReader(file, restval="", restkey=""):
                    rows.setdefault(_text(row.pop("id", None)), row)
        except (OSError, ValueError, csv.Error):
            rows.clear()
            folder.notes.append(f"{EVALUATION}/{TABLE} is damaged: python -m app evaluate makes it again")
        for design in folder.designs:
            # each row once, and with an apostrophe as spreadsheets are kept from running it
            row = rows.pop(design.id, None) or rows.pop(f"'{design.id}", {})
            for name, text in row.items():
                if name and text and name not in ALREADY_TOLD:
                    number = _number(text)
                    design.values[name] = text if number is None else number
    if summary.exists():
        found = json_object(summary)
        if found is not None:
            folder.summary = found
        else:
            folder.notes.append(f"{EVALUATION}/{SUMMARY} is damaged: python -m app evaluate makes it again")


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return "" if value is None else printable(str(value))


def _number(value: Any) -> float | None:
    """None for what is no finite number; truth values are words."""
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is not None and math.isfinite(number) else None
