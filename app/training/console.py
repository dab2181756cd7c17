"""What a run says to its user: one console for lines, log messages and the progress bar; and a file that keeps it."""

import logging
import warnings
from datetime import datetime
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.highlighter import NullHighlighter

from app.files.whole import told_of

console = Console(highlighter=NullHighlighter(), soft_wrap=True)


class _Kept:
    """Lines with their time, for a file; what is said before that is known waits."""

    def __init__(self):
        self.path: Path | None = None
        self.waiting: list[str] = []

    def add(self, line: str) -> None:
        self.waiting.append(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")
        if self.path is not None:
            with told_of(self.path), self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(self.waiting)
            self.waiting = []


_kept: _Kept | None = None


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        say(prefix + record.getMessage())


def set_up() -> None:
    """Trunkline's log messages to the console, of the first rank only; of Lightning's, only its errors."""
    global _kept
    _kept = _Kept()
    console.quiet = rank_zero_only.rank != 0
    app = logging.getLogger("app")
    app.setLevel(logging.INFO)
    app.handlers = [_ToConsole()]
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)")


def say(line: str) -> None:
    console.print(line, markup=False)
    keep(line)


def keep(line: str) -> None:
    """A line for the file alone. Only the first rank keeps any, and only where `set_up` was called."""
    if _kept is not None and not console.quiet:
        _kept.add(line)


def keep_in(path: Path) -> None:
    """The file that keeps what has been said since `set_up`, and what will be; it is continued where it exists."""
    if _kept is not None:
        _kept.path = path
