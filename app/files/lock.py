"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from app.errors import UserError
from app.files.whole import told_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

log = logging.getLogger(__name__)


class Lock:
    """`OUT/.lock`, held from `take` to `release` or the process's end, however it ends.

    A record lock (`lockf`), which processes that this one forks do not hold: a data worker that outlives a killed run
    keeps nobody from going on with it.
    """

    def __init__(self, folder: Path, doing: str = "training"):
        """doing: what its holder does into the folder, for those that are refused."""
        self.path, self.doing = folder / ".lock", doing
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Raises UserError where another process holds it."""
        if fcntl is None:
            return
        with told_of(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while self._file is None:
                file = self.path.open("a+")
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except (BlockingIOError, PermissionError):
                    holder = _written_in(file)
                    file.close()
                    raise self._refusal(*holder) from None
                except OSError as error:  # a file system without locks
                    log.warning("%s: cannot be locked (%s): start no second run here", self.path, error.strerror)
                self._file = file if _is_at(self.path, file) else None  # its holder may just have removed it
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}{_IS}{self.doing}\n")
            self._file.flush()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """From `take` to `release`."""
        self.take()
        try:
            yield
        finally:
            self.release()

    def _refusal(self, holder: str, doing: str) -> UserError:
        return UserError(
            f"out={self.path.parent}: {holder} is {doing} into it: wait for its end or stop it, or choose another out="
        )

    def refuse_held(self) -> None:
        """Raises UserError where another process holds it; as with `holder`, not to be asked where this one does."""
        if (holder := self._holder()) is not None:
            raise self._refusal(*holder)

    def holder(self) -> str | None:
        """The other process that holds it, as `process 12 on host`; None where none does.

        Not to be asked where this process holds it: record locks end with the first file closed.
        """
        return (self._holder() or (None,))[0]

    def _holder(self) -> tuple[str, str] | None:
        with contextlib.suppress(OSError):  # none there, or a file system without locks
            if fcntl is not None:
                with self.path.open() as file:
                    try:
                        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    except (BlockingIOError, PermissionError):
                        return _written_in(file)
        return None

    def release(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


_IS = " is "


def _written_in(file: IO[str]) -> tuple[str, str]:
    """Who holds it, and what that does into the folder."""
    file.seek(0)
    who, _, doing = file.read().strip().partition(_IS)
    return who or "another process", doing or "writing"


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
