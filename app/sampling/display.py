"""What a run shows: a bar on a terminal, plain lines elsewhere, warnings and a summary on both."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

_FILES = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
_DESIGNS = (
    TextColumn("designs"),
    BarColumn(),
    TextColumn("{task.fields[done]}/{task.fields[designs]}"),
    TextColumn("{task.fields[now]}"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


class Display:
    """A context around a run. bar: show progress at all. quiet: say nothing at all.

    The bar moves with the work, which is reckoned to grow with the square of a design's length, so that the time left
    is told of long designs as well as it was of short ones.
    """

    def __init__(self, bar: bool = True, console: Console | None = None, quiet: bool = False):
        self.console = console or Console(highlight=False, soft_wrap=True, quiet=quiet)
        self.bar = bar
        self._live = bar and self.console.is_terminal and not quiet
        self._progress = Progress(*_DESIGNS, console=self.console, disable=not self._live)
        self._task = None
        self._designs = self._done = self._work = 0

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def reading(self, files: list[Path]) -> Iterable[Path]:
        """The files, with a bar where there are several."""
        return self._through(files, "reading")

    def verifying(self, designs: list[T]) -> Iterable[T]:
        """Designs of an earlier run, likewise."""
        return self._through(designs, "verifying")

    def start(self, lengths: Sequence[int], designs: int) -> None:
        """lengths: of the designs to be made. designs: all of the run."""
        self._designs, self._done = designs, designs - len(lengths)
        if self._done > 0:
            self.say(f"{self._done} of {designs} designs are there already, as they were written")
        self._progress.start()
        total = sum(length**2 for length in lengths)
        self._task = self._progress.add_task("", total=total, done=self._done, designs=designs, now="")

    def step(self, length: int, size: int, step: int, steps: int) -> None:
        """A model call of the batch at hand is done."""
        if self._task is None:
            return
        now = f"{size} of length {length}, step {step}/{steps}"
        under_way = size * length**2 * step / steps
        self._progress.update(self._task, completed=self._work + under_way, now=now)

    def finished(self, length: int, size: int) -> None:
        """So many designs of a length are done or have failed."""
        self._done += size
        self._work += size * length**2
        self._progress.update(self._task, completed=self._work, done=self._done)
        if self.bar and not self._live:
            self.say(f"{self._done} of {self._designs} designs, length {length}")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _through(self, things: list[T], doing: str) -> Iterable[T]:
        with Progress(*_FILES, console=self.console, disable=not self._live, transient=True) as progress:
            yield from progress.track(things, description=doing) if len(things) > 1 else things
