"""The structure files of a folder, and what tells that one of them has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from app.errors import UserError
from app.structure.parse import SUFFIXES, format_of


@dataclass(frozen=True)
class Found:
    root: Path
    names: list[str]  # of the structure files, relative to `root`, in order
    stamps: np.ndarray  # [files, 3] int64: size in bytes, times of the last change of content and of inode in ns
    other_files: int  # that are no structures by their suffix
    is_folder: bool = True  # whether these are all files of `root`
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # (name of a folder or file, why), passed over

    def take(self, places: Sequence[int]) -> Found:
        """The files at these places alone."""
        return replace(self, names=[self.names[place] for place in places], stamps=self.stamps[places])

    def paths(self) -> list[Path]:
        return [self.root / name for name in self.names]


def find_files(path: Path) -> Found:
    """Structure files under a folder (hidden ones and hidden folders left out), or the one that `path` names.

    Raises UserError: no such path, a file of unknown suffix, a folder that cannot be listed.
    """
    if path.is_file():
        if format_of(path) is None:
            raise UserError(
                f"{path}: not a structure file by its suffix; Trunkline reads {SUFFIXES}, each also with .gz"
            )
        return Found(path.parent, [path.name], np.array([_stamp(path.stat())]), 0, is_folder=False)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; set data.path to a folder of structure files ({SUFFIXES})")
    structures, others, unreadable = [], 0, []
    for name, stamp in _files(str(path), "", unreadable):
        if format_of(name):
            structures.append((name, stamp))
        else:
            others += 1
    structures.sort(key=lambda one: one[0].split("/"))
    stamps = np.array([stamp for _, stamp in structures], dtype=np.int64).reshape(-1, 3)
    if unreadable and unreadable[0][0] == "":
        raise UserError(
            f"{path}: cannot be listed ({unreadable[0][1]}); mend its permissions, or set another data.path"
        )
    return Found(path, [name for name, _ in structures], stamps, others, unreadable=sorted(unreadable))


def _files(folder: str, prefix: str, unreadable: list[tuple[str, str]]) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """(name relative to where it began, stamp); links to folders are not followed. What cannot be looked at, or is gone
    meanwhile, is added to `unreadable`."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        unreadable.append((prefix, error.strerror))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{prefix}{entry.name}/", unreadable)
            elif entry.is_file():
                yield prefix + entry.name, _stamp(entry.stat())
        except OSError as error:
            unreadable.append((prefix + entry.name, error.strerror))


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
