"""`data=structures`: training examples from a folder of structure files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.data import cache
from app.data.cluster_cache import clusters_of_sequences
from app.data.cluster_file import clusters_of_file
from app.data.find import find_files
from app.data.index import Index, open_index
from app.data.part import Part
from app.data.preprocess import Job, prepare
from app.data.seen import Seen
from app.data.split import split
from app.data.strings import Strings
from app.data.structures_settings import StructuresSettings
from app.errors import UserError
from app.structure.parse import SUFFIXES, stem_of

log = logging.getLogger(__name__)

_NAMED = 20  # unreadable files that are named in the log one by one


@dataclass
class Survey:
    """What a folder offers under given settings."""

    root: Path
    index: Index
    used: Tensor  # [examples] int64: the rows of the index that pass the filters
    names: Strings  # of these
    unreadable: list[tuple[str, str]]  # (name of a file, why it gives no examples)
    filtered: list[tuple[str, str]]  # (name of an example, which filter it fails)
    notes: list[tuple[str, str]]  # (name of a file, what the reader decided)
    other_files: int  # files in the folder that are no structures by their suffix

    @property
    def dropped(self) -> list[tuple[str, str]]:
        return self.unreadable + self.filtered

    @property
    def lengths(self) -> np.ndarray:
        """[examples] residues of those in use."""
        return self.index.lengths[self.used].numpy()

    def sequences(self) -> list[str]:
        """Of those in use, chains separated by `BETWEEN_CHAINS`."""
        everyones = list(self.index.sequences)
        return [everyones[row] for row in self.used.tolist()]


def survey(settings: StructuresSettings, show_progress: bool = True) -> Survey:
    """Find the files, prepare those that are new (see `open_index`) and apply the filters.

    Raises UserError: path missing, one file of unknown suffix, cache folder not writable.
    """
    found = find_files(settings.path)
    index = open_index(found, _job(settings), settings.processes, show_progress)
    files = _names(found.names)
    unreadable = found.unreadable + [(name, error) for name, error in zip(files, index.errors, strict=True) if error]
    notes = [(name, note) for name, notes in zip(files, index.notes, strict=True) for note in notes.split("\n") if note]
    names = [files[source] for source in index.source.tolist()]
    if settings.chains == "separate":
        names = [f"{name}_{chain}" for name, chain in zip(names, index.chains, strict=True)]
    faults, reasons = _faults(index, settings)
    filtered = [(names[row], reasons[faults[row]]) for row in np.flatnonzero(faults >= 0).tolist()]
    used = np.flatnonzero(faults < 0)
    in_use = Strings.pack(names).select(used)
    return Survey(found.root, index, torch.from_numpy(used), in_use, unreadable, filtered, notes, found.other_files)


def summary(dropped: Iterable[tuple[str, str]]) -> list[tuple[str, int, list[str]]]:
    """(reason, count, names) of what was dropped, the most frequent reason first."""
    names: dict[str, list[str]] = {}
    for name, reason in dropped:
        names.setdefault(reason, []).append(name)
    return [(reason, len(those), those) for reason, those in sorted(names.items(), key=lambda one: -len(one[1]))]


class StructureDataset:
    """Every chain (or every file, with `chains: together`) that passes the filters is an example.

    names, lengths: of the examples in use; contents: hashes of their files. dropped: (name, reason) of the others,
    unreadable: of the files that gave none. clusters: [examples] int64, or None where the settings have no use for
    them. Reads from the cache, and keeps what it knows in tensors, which worker processes share.

    Raises UserError: see `survey`; nothing is usable, with the reasons; cluster file not readable.
    """

    def __init__(self, settings: StructuresSettings):
        self.settings = settings
        found = survey(settings)
        self.unreadable, self.dropped = found.unreadable, found.dropped
        if not len(found.names):
            raise UserError(_nothing_usable(found, settings))
        self.names, self.lengths = found.names, found.lengths
        self._source, self._place = found.index.source[found.used], found.index.places[found.used]
        self._root, self._files, self._keys = found.root, found.index.files, found.index.keys
        self.contents = self._keys[self._source].numpy()
        self._tell()
        self.clusters = self._clusters(found)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Features of one example (see `app.data.features`) and its name. A damaged cache file is made anew.

        Raises UserError where that is not possible because the structure file was changed or removed meanwhile.
        """
        tensors = self._load(int(self._source[index]))
        prefix = f"{self._place[index]}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        return {**own, "name": self.names[index]}

    def draw(self, epoch: int, seed: int) -> np.ndarray:
        """The examples of an epoch: all of them."""
        return np.arange(len(self))

    def split(self, seen: Seen | None = None) -> tuple[StructureDataset | Part, Part | None]:
        """What is trained on and what is held out, by the settings; no cluster is on both sides.

        Raises UserError: see `app.data.split`.
        """
        by, clusters = self.settings, self.clusters
        if clusters is None and seen is not None and seen.held_out:
            clusters = np.arange(len(self))  # what was held out stays so
        if clusters is None:
            return self, None
        return split(self, clusters, by.validation, clusters if by.sample_by == "cluster" else None, seen)

    def _clusters(self, found: Survey) -> np.ndarray | None:
        settings = self.settings
        if settings.clusters is not None:
            return clusters_of_file(settings.clusters, self.names)
        if settings.sample_by == "chain" and not settings.validation.is_on(len(self)):
            return None
        return clusters_of_sequences(found.sequences(), settings.likeness, _job(settings).cache_dir)

    def _load(self, source: int) -> dict[str, Tensor]:
        path, key = self._root / self._files[source], bytes(self._keys[source].numpy()).hex()
        job = _job(self.settings)
        try:
            return cache.load(cache.file_of(job.cache_dir, key))[0]
        except cache.CacheMiss:
            tensors, prepared = prepare(path, job)
        if prepared.key != key:
            raise UserError(f"{path}: changed or removed since this run began; put it back or start again")
        return tensors

    def _tell(self) -> None:
        path, files = self.settings.path, len(self._source.unique())
        log.info("%s: %d examples from %d files are used", path, len(self), files)
        for name, reason in self.unreadable[:_NAMED]:
            log.warning("dropped %s: %s", name, reason)
        if (more := len(self.unreadable) - _NAMED) > 0:
            log.warning("dropped %d more files that cannot be read: python -m app data check %s --all", more, path)
        for reason, count, _ in summary(self.dropped[len(self.unreadable) :]):
            log.info("%s: %d left out: %s", path, count, reason)


def _job(settings: StructuresSettings) -> Job:
    return Job(settings.cache_dir or cache.default_folder(), settings.chains)


def _names(files: list[str]) -> list[str]:
    """Entry names; files that would share one are named by their place in the folder."""
    stems = [stem_of(file) for file in files]
    several = Counter(stems)
    return [stem if several[stem] == 1 else file.replace("/", "_") for stem, file in zip(stems, files, strict=True)]


def _faults(index: Index, settings: StructuresSettings) -> tuple[np.ndarray, list[str]]:
    """([examples] number of the first filter that each fails, -1 for none; what the filters say)."""
    lengths, unknown = index.lengths.numpy(), index.unknown.numpy()
    longest = np.iinfo(np.int64).max if settings.max_length is None else settings.max_length
    filters = {
        f"shorter than min_length, {settings.min_length} residues": lengths < settings.min_length,
        f"longer than max_length, {settings.max_length} residues": lengths > longest,
        f"more unknown residues (X) than max_unknown_fraction, {settings.max_unknown_fraction:g}": unknown
        > settings.max_unknown_fraction * lengths,
    }
    fails = np.stack(list(filters.values()))
    return np.where(fails.any(0), fails.argmax(0), -1), list(filters)


def _nothing_usable(found: Survey, settings: StructuresSettings) -> str:
    if not len(found.index.files):
        return f"{settings.path}: holds no structure files; put files with {SUFFIXES} there, each also with .gz"
    reasons = "; ".join(f"{count} x {reason} ({names[0]})" for reason, count, names in summary(found.dropped)[:5])
    return f"{settings.path}: nothing usable in {len(found.index.files)} structure files: {reasons}"
