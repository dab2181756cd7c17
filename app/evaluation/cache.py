"""What was measured before: a file of lines that is only ever added to.

A line is its own SHA-256, a key and a value as JSON. One that was cut short or altered, or is no such pair, is passed
over; whoever asks for a value sees to it that it is of its kind. A key names what was measured, the version of how, and
the content that it was measured of: nothing has to be thrown away when any of these changes.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

FILE = "cache.jsonl"

_DIGEST = 64


class Cache:
    """Values by key. A folder that cannot be written to keeps none; `problem` then says why."""

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self.problem: str | None = None
        self._values = dict(_lines(self.path))
        self._file = None

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_) -> None:
        if self._file is not None:
            self._file.close()

    def get(self, key: str) -> Any | None:
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        self._values[key] = value
        if self.problem is not None:
            return
        text = json.dumps([key, value])
        line = f"{hashlib.sha256(text.encode()).hexdigest()} {text}\n".encode()
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)  # of a line that failed nothing is left for the end
                self._file.write(b"\n")  # after a line that was cut short
            if self._file.write(line) < len(line):
                self.problem = f"{self.path}: not written: no room"
        except OSError as error:
            self.problem = f"{self.path}: not written: {error.strerror}"


def key_of(what: str, version: int, *contents: bytes | str) -> str:
    """contents: bytes, or the digest of such."""
    digests = (one if isinstance(one, str) else hashlib.sha256(one).hexdigest() for one in contents)
    return "/".join([what, str(version), *digests])


def _lines(path: Path):
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in content.splitlines():
        digest, text = line[:_DIGEST], line[_DIGEST + 1 :]
        if len(digest) == _DIGEST and hashlib.sha256(text.encode()).hexdigest() == digest:
            try:
                key, value = json.loads(text)
            except (ValueError, TypeError, RecursionError):
                continue
            if isinstance(key, str):
                yield key, value
