"""What a run would make of a user's data: which examples it would use, what it would drop, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from app.config.validate import parse
from app.data import multiflow_settings
from app.data.structures import survey
from app.data.structures_settings import StructuresSettings
from app.errors import UserError


@dataclass
class CheckReport:
    kind: str  # "structures" or "multiflow": what `data=` has to be
    used: list[tuple[str, int]]  # (name, residues)
    dropped: list[tuple[str, str]]  # (name, reason)
    notes: list[tuple[str, str]] = field(default_factory=list)  # (name, what was decided in reading it)
    other_files: int = 0  # files that are no structures by their suffix


def check(path: Path, options: Mapping[str, Any] | None = None) -> CheckReport:
    """Read everything that `data.path=path` would train on, under the settings that `options` changes.

    path: a folder of structure files, one such file, or a folder in Multiflow's layout (told by its metadata). What is
    prepared on the way is kept in the cache, so that training starts at once.
    Raises UserError: no such path, an option that this kind of data does not have, cache folder not writable.
    """
    values = {"path": str(path), **(options or {})}
    return _check_multiflow(values) if is_multiflow(path) else _check_structures(values)


def is_multiflow(path: Path) -> bool:
    return any((path / name).is_file() for name in multiflow_settings.DEFAULT_FILES["metadata"])


def _check_structures(values: dict) -> CheckReport:
    found = survey(parse(StructuresSettings, values, "data"))
    used = list(zip(found.names, found.lengths.tolist(), strict=True))
    return CheckReport("structures", used, found.dropped, found.notes, found.other_files)


def _check_multiflow(values: dict) -> CheckReport:
    from app.data.multiflow import MultiflowDataset  # the other kind does without its dependencies

    settings = parse(multiflow_settings.MultiflowSettings, {**values, "max_cache_size": 0}, "data")
    dataset = MultiflowDataset(settings)
    used, dropped = [], list(dataset.dropped)
    console = Console(stderr=True)
    for index in track(range(len(dataset)), "reading entries", console=console, transient=True):
        name = dataset.names[index]
        try:
            used.append((name, len(dataset[index]["res_mask"])))
        except UserError as error:
            dropped.append((name, str(error)))
    return CheckReport("multiflow", used, dropped)
