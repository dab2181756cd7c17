"""What has become of designs, a line each, as it happens.

Rewriting the manifest for every design would take time that grows with the square of their number. So each process of
a run appends to a journal of its own, `OUT/.journal-RANK.jsonl`, and the first process folds all of them into the
manifest from time to time, at the end, and when a run that was killed goes on.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DONE = "done"
"""Why a process ended that has made its share."""

PATTERN = ".journal-*.jsonl"


def path_of(folder: Path, rank: int) -> Path:
    return folder / f".journal-{rank}.jsonl"


class Journal:
    """The journal of one process, a context; there is a file from the first line on."""

    def __init__(self, folder: Path, rank: int):
        self.path = path_of(folder, rank)
        self.rank = rank
        self._file: int | None = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def add(self, record: dict[str, Any]) -> None:
        """Append a design's record. Raises OSError, leaving the journal as it was, where it cannot be written."""
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        before = os.fstat(self._file).st_size
        line = json.dumps(record).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def end(self, why: str) -> None:
        """The last line: this process makes no more designs. Raises OSError."""
        self.add({"rank": self.rank, "ended": why})


class Journals:
    """All journals of a run, read as they grow. A line that is not whole, cut short by a kill, does not count."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.ended: dict[int, str] = {}  # by rank, why
        self._read: dict[Path, int] = {}  # bytes so far

    def new(self) -> list[dict[str, Any]]:
        """Records that were added since the last call."""
        records = []
        for path in sorted(self.folder.glob(PATTERN)):
            for entry in self._entries(path):
                if "ended" in entry:
                    self.ended[entry["rank"]] = entry["ended"]
                else:
                    records.append(entry)
        return records

    def _entries(self, path: Path) -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read[path] = self._read.get(path, 0) + len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # a power cut leaves zeros
                continue
            if isinstance(entry, dict) and isinstance(entry.get("rank" if "ended" in entry else "id"), int | str):
                yield entry

    def remove(self) -> None:
        """All of them, once what they say is in the manifest: those of an earlier run."""
        for path in self.folder.glob(PATTERN):
            path.unlink(missing_ok=True)
        self.ended.clear()
        self._read.clear()

    def remove_ended(self) -> None:
        """Those to which nothing will be added any more. What others still say is for the next run to read."""
        for rank in self.ended:
            path_of(self.folder, rank).unlink(missing_ok=True)
