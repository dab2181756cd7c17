"""`data=structures`: training examples from a folder of structure files."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from app.data import cache
from app.data.preprocess import Job, Prepared, prepare, prepare_all
from app.data.structures_settings import StructuresSettings
from app.errors import UserError
from app.structure.parse import SUFFIXES, format_of, stem_of

log = logging.getLogger(__name__)


class Example(NamedTuple):
    name: str
    length: int
    source: int  # index into Survey.files
    place: int  # among the examples of that source


@dataclass
class Survey:
    """What a folder offers under given settings."""

    files: list[Path]
    prepared: list[Prepared]
    examples: list[Example]
    dropped: list[tuple[str, str]]  # (name of an example or file, reason)
    notes: list[tuple[str, str]]  # (name of a file, what the reader decided)
    other_files: int  # files in the folder that are no structures by their suffix


def survey(settings: StructuresSettings, show_progress: bool = True) -> Survey:
    """Find the files, prepare them (see `prepare_all`) and apply the filters.

    Raises UserError: path missing, one file of unknown suffix, cache folder not writable.
    """
    files, other_files = find_files(settings.path)
    prepared = prepare_all(files, _job(settings), settings.processes, show_progress)
    found = Survey(files, prepared, [], [], [], other_files)
    for source, (name, result) in enumerate(zip(_names(settings.path, files), prepared, strict=True)):
        if result.record["error"]:
            found.dropped.append((name, result.record["error"]))
        found.notes += [(name, note) for note in result.record["notes"]]
        for place, example in enumerate(result.record["examples"]):
            full_name = name if example["chain"] is None else f"{name}_{example['chain']}"
            if reason := _reason_to_drop(example, settings):
                found.dropped.append((full_name, reason))
            else:
                found.examples.append(Example(full_name, example["length"], source, place))
    return found


def summary(dropped: list[tuple[str, str]]) -> list[tuple[str, int, list[str]]]:
    """(reason, count, names) of what was dropped, the most frequent reason first."""
    counts = Counter(reason for _, reason in dropped)
    return [(reason, count, [name for name, why in dropped if why == reason]) for reason, count in counts.most_common()]


def find_files(path: Path) -> tuple[list[Path], int]:
    """Structure files under a folder (hidden ones and hidden folders left out), sorted, and how many others there are.

    A path to one file gives that. Raises UserError: no such path, a file of unknown suffix.
    """
    if path.is_file():
        if format_of(path) is None:
            raise UserError(
                f"{path}: not a structure file by its suffix; Trunkline reads {SUFFIXES}, each also with .gz"
            )
        return [path], 0
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; set data.path to a folder of structure files ({SUFFIXES})")
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    structures = [file for file in files if format_of(file)]
    return structures, len(files) - len(structures)


class StructureDataset:
    """Every chain (or every file, with `chains: together`) that passes the filters is an example.

    names, lengths: of the examples in use. dropped: (name, reason) of the others. Reads from the cache, so that copies
    sent to worker processes are small.

    Raises UserError: see `survey`; or nothing is usable, with the reasons.
    """

    def __init__(self, settings: StructuresSettings):
        self.settings = settings
        found = survey(settings)
        self.dropped = found.dropped
        if not found.examples:
            raise UserError(_nothing_usable(found, settings))
        self.names = [example.name for example in found.examples]
        self.lengths = np.array([example.length for example in found.examples], dtype=np.int64)
        self._source = np.array([example.source for example in found.examples])
        self._place = np.array([example.place for example in found.examples])
        self._files = found.files
        self._keys = [prepared.key for prepared in found.prepared]
        log.info("%s: %d examples from %d files are used", settings.path, len(self), len(set(self._source.tolist())))
        for reason, count, _ in summary(self.dropped):
            log.info("%s: %d dropped: %s", settings.path, count, reason)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Features of one example (see `app.data.features`) and its name. A damaged cache file is made anew.

        Raises UserError where that is not possible because the structure file was changed or removed meanwhile.
        """
        source = int(self._source[index])
        tensors = self._load(source)
        prefix = f"{self._place[index]}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        return {**own, "name": self.names[index]}

    def draw(self, epoch: int, seed: int) -> np.ndarray:
        """The examples of an epoch: all of them."""
        return np.arange(len(self))

    def _load(self, source: int) -> dict[str, Tensor]:
        path, key = self._files[source], self._keys[source]
        job = _job(self.settings)
        try:
            return cache.load(cache.file_of(job.cache_dir, key))[0]
        except cache.CacheMiss:
            tensors, prepared = prepare(path, job)
        if prepared.key != key:
            raise UserError(f"{path}: changed or removed since this run began; put it back or start again")
        return tensors


def _job(settings: StructuresSettings) -> Job:
    return Job(settings.cache_dir or cache.default_folder(), settings.chains)


def _names(path: Path, files: list[Path]) -> list[str]:
    """Entry names; files that would share one are named by their place in the folder."""
    stems = Counter(stem_of(file) for file in files)
    return [
        stem if stems[stem := stem_of(file)] == 1 else file.relative_to(path).as_posix().replace("/", "_")
        for file in files
    ]


def _reason_to_drop(example: dict, settings: StructuresSettings) -> str | None:
    if example["length"] < settings.min_length:
        return f"shorter than min_length, {settings.min_length} residues"
    if settings.max_length is not None and example["length"] > settings.max_length:
        return f"longer than max_length, {settings.max_length} residues"
    if example["unknown"] > settings.max_unknown_fraction * example["length"]:
        return f"more unknown residues (X) than max_unknown_fraction, {settings.max_unknown_fraction:g}"
    return None


def _nothing_usable(found: Survey, settings: StructuresSettings) -> str:
    if not found.files:
        return f"{settings.path}: holds no structure files; put files with {SUFFIXES} there, each also with .gz"
    reasons = "; ".join(f"{count} x {reason} ({names[0]})" for reason, count, names in summary(found.dropped)[:5])
    return f"{settings.path}: nothing usable in {len(found.files)} structure files: {reasons}"
