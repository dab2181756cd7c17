"""What a run says to its user: one console for lines, log messages and the progress bar."""

import logging
import warnings

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.highlighter import NullHighlighter

console = Console(highlighter=NullHighlighter(), soft_wrap=True)


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        console.print(prefix + record.getMessage(), markup=False)


def set_up() -> None:
    """Trunkline's log messages to the console, of the first rank only; of Lightning's, only its errors."""
    console.quiet = rank_zero_only.rank != 0
    app = logging.getLogger("app")
    app.setLevel(logging.INFO)
    app.handlers = [_ToConsole()]
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)")


def say(line: str) -> None:
    console.print(line, markup=False)
