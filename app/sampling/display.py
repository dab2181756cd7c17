"""What a run shows: a bar on a terminal, plain lines elsewhere, warnings and a summary on both."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[now]}"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


class Display:
    """A context around a run. bar: show progress at all."""

    def __init__(self, bar: bool = True, console: Console | None = None):
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.bar = bar
        self._live = bar and self.console.is_terminal
        self._progress = Progress(*_COLUMNS, console=self.console, disable=not self._live)
        self._task = None
        self._total = self._done = 0

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def reading(self, files: list[Path]) -> Iterable[Path]:
        """The files, with a bar where there are several."""
        task = self._progress.add_task("reading", total=len(files), now="", visible=len(files) > 1)
        for file in files:
            yield file
            self._progress.advance(task)
        self._progress.remove_task(task)

    def start(self, designs: int) -> None:
        self._total = designs
        self._task = self._progress.add_task("designs", total=designs, now="")

    def step(self, length: int, size: int, step: int, steps: int) -> None:
        """A model call of the batch at hand is done."""
        now = f"{size} of length {length}, step {step}/{steps}"
        self._progress.update(self._task, now=now)

    def finished(self, length: int, size: int) -> None:
        """So many designs of a length are done or have failed."""
        self._done += size
        self._progress.update(self._task, completed=self._done)
        if self.bar and not self._live:
            self.say(f"{self._done} of {self._total} designs, length {length}")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
