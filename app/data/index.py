"""What a folder of structure files holds, in one file of the cache: opened in seconds, however many files there are.

Without it every file would have to be read at every start to see by its content whether it is cached. An index believes
a file that has the size and the times of change that it had when it was read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import safetensors
import torch
from torch import Tensor

from app.data import cache
from app.data.find import Found
from app.data.preprocess import Job, Prepared, prepare_all
from app.data.strings import Strings
from app.errors import UserError

_SETTLED = 2_000_000_000
"""Nanoseconds that a file must have been left alone to be believed: a change within the clock's grain is not seen."""

_BETWEEN_NOTES = "\n"
_OF_FILES = ("files", "stamps", "keys", "errors", "notes")


@dataclass(frozen=True)
class Index:
    """Columns over the files of a folder, and over the examples that they hold, in the order of the files."""

    files: Strings  # relative to the folder
    stamps: Tensor  # [files, 3] int64, see `Found`; -1: to be looked at again
    keys: Tensor  # [files, 32] uint8: of the cached form; 0 where the file could not be read
    errors: Strings  # why a file gives no examples; "" where it does
    notes: Strings  # what the reader decided
    source: Tensor  # [examples] int64: place among the files
    chains: Strings  # "" where all chains of a file make one example
    lengths: Tensor  # [examples] int64 residues
    unknown: Tensor  # [examples] int64 residues of unknown type
    sequences: Strings  # one-letter codes; chains of an example separated by `BETWEEN_CHAINS`

    @property
    def places(self) -> Tensor:
        """[examples] int64: each example's number among those of its file."""
        first = torch.searchsorted(self.source, torch.arange(len(self.files)))
        return torch.arange(len(self.source)) - first[self.source]


def open_index(found: Found, job: Job, processes: int, show_progress: bool = True) -> Index:
    """The index of the files found, brought up to date: what is new or changed is prepared (see `prepare_all`). That of
    a single file is not kept, the folder's would make room for it.

    Raises UserError where the cache cannot be written.
    """
    file = _file_of(found.root, job)
    old = _load(file)
    believed = _believed(old, found) if old is not None else {}
    if old is not None and len(believed) == len(found.names) == len(old.files):
        return old
    began = time.time_ns()
    changed = found.take([place for place, name in enumerate(found.names) if name not in believed])
    made = prepare_all(changed.paths(), job, processes, show_progress) if changed.names else []
    index = _pack(changed, made, began)
    if believed:
        index = _merged(old, believed, index, found.names)
    if not found.is_folder:
        return index
    try:
        cache.save(file, _tensors(index), {})
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{file}: cannot be written ({error}); make room or set another cache_dir") from None
    return index


def _file_of(root: Path, job: Job) -> Path:
    key = hashlib.sha256(json.dumps([str(root.resolve()), job.chains]).encode()).hexdigest()
    return cache.file_of(job.cache_dir, key).with_suffix(".index")


def _believed(old: Index, found: Found) -> dict[str, int]:
    """Name of each file that is as it was -> its place in the old index."""
    place_of = {name: place for place, name in enumerate(old.files)}
    places = np.array([place_of.get(name, -1) for name in found.names], dtype=np.int64)
    same = places >= 0
    same[same] = (old.stamps.numpy()[places[same]] == found.stamps[same]).all(1)
    return {found.names[here]: int(places[here]) for here in np.flatnonzero(same)}


def _pack(found: Found, prepared: Sequence[Prepared], began: int) -> Index:
    """began: when reading began, in ns; files that changed shortly before may have changed since."""
    records = [one.record for one in prepared]
    examples = [(source, example) for source, record in enumerate(records) for example in record["examples"]]
    stamps = found.stamps.copy()
    unsettled = stamps[:, 2] > began - _SETTLED
    stamps[unsettled | np.array([one.key is None for one in prepared], dtype=bool)] = -1
    keys = b"".join(bytes.fromhex(one.key or "00" * 32) for one in prepared)
    return Index(
        files=Strings.pack(found.names),
        stamps=torch.from_numpy(stamps),
        keys=torch.from_numpy(np.frombuffer(keys, dtype=np.uint8).reshape(-1, 32).copy()),
        errors=Strings.pack(record["error"] or "" for record in records),
        notes=Strings.pack(_BETWEEN_NOTES.join(record["notes"]) for record in records),
        source=torch.tensor([source for source, _ in examples], dtype=torch.int64),
        chains=Strings.pack(example["chain"] or "" for _, example in examples),
        lengths=torch.tensor([example["length"] for _, example in examples], dtype=torch.int64),
        unknown=torch.tensor([example["unknown"] for _, example in examples], dtype=torch.int64),
        sequences=Strings.pack(example["sequence"] for _, example in examples),
    )


def _merged(old: Index, believed: dict[str, int], new: Index, names: Sequence[str]) -> Index:
    """The index of the files of these names: what the old one has of those believed, and all that the new one has."""
    place_of = believed | {name: len(old.files) + place for place, name in enumerate(new.files)}
    files = np.array([place_of[name] for name in names], dtype=np.int64)
    new_place = np.full(len(old.files) + len(new.files), -1)
    new_place[files] = np.arange(len(files))
    source = new_place[torch.cat([old.source, new.source + len(old.files)]).numpy()]
    examples = np.argsort(source, kind="stable")
    examples = examples[source[examples] >= 0]
    columns: dict[str, Strings | Tensor] = {}
    for field in fields(Index):
        one, other = getattr(old, field.name), getattr(new, field.name)
        rows = files if field.name in _OF_FILES else examples
        packed = isinstance(one, Strings)
        columns[field.name] = (one + other).select(rows) if packed else torch.cat([one, other])[torch.from_numpy(rows)]
    return Index(**columns | {"source": torch.from_numpy(source[examples])})


def _tensors(index: Index) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for field in fields(Index):
        value = getattr(index, field.name)
        if isinstance(value, Strings):
            tensors |= {f"{field.name}.text": value.text, f"{field.name}.ends": value.ends}
        else:
            tensors[field.name] = value
    return tensors


def _load(file: Path) -> Index | None:
    """None where there is no index, or one that is damaged or of another version."""
    try:
        tensors = cache.load(file)[0]
        strings = {name[: -len(".text")] for name in tensors if name.endswith(".text")}
        columns = {name: Strings(tensors[f"{name}.text"], tensors[f"{name}.ends"]) for name in strings}
        return Index(**columns, **{name: value for name, value in tensors.items() if "." not in name})
    except (cache.CacheMiss, KeyError, TypeError):
        return None
