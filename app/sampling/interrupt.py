"""Signals that end a run of designs: the model call under way is the last. A second Ctrl-C ends it at once."""

import os
import signal
import threading
from types import FrameType

from app.config.entry import INTERRUPTED
from app.signals import ENDING, tell


class Interrupted(BaseException):
    """A signal ends the run. No Exception, so that nobody takes it for a design that failed."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status: that of train.py."""
        return INTERRUPTED if self.number == signal.SIGINT else 128 + self.number


class Interruptible:
    """A context in which signals, from `listen` on, only leave word, so that nothing is cut short while files and
    accounts are written; whoever may be stopped says so by `check`. Before that there is nothing to be cut short."""

    def __init__(self, parent: int | None = None, says: bool = True):
        """parent: the process without which this one has no business. says: whether the user is told."""
        self.received: int | None = None
        self.parent, self.says = parent, says
        self._before: dict = {}

    def __enter__(self) -> "Interruptible":
        return self

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in ENDING}

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise Interrupted(number)
        if self.received is None and self.says:
            tell("\nstopping" + ("; again to stop at once\n" if number == signal.SIGINT else "\n"))
        self.received = self.received or number

    def check(self) -> None:
        """Raises Interrupted where a signal has come, or the parent has gone."""
        if self.received is None and self.parent is not None and os.getppid() != self.parent:
            self.received = signal.SIGTERM
        if self.received is not None:
            raise Interrupted(self.received)
