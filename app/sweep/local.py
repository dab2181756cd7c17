"""Jobs on this machine: one after another, each as a fresh process that leads a group of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from app.signals import ENDING
from app.sweep.jobs import Job
from app.sweep.task import TRAIN

PASSED_ON = {number: number for number in ENDING} | {signal.SIGHUP: signal.SIGTERM}
"""What a job is sent: one has no terminal of its own that could hang up."""


class Local:
    """Runs jobs. A signal goes on to the job that runs, which saves and ends; `received` then tells which it was, and
    no further job is to begin. A second Ctrl-C ends the job at once, as it would without a sweep.

    Devices of a job share its group: what a job leaves behind is ended with it, and the terminal's Ctrl-C comes here
    alone.
    """

    def __init__(self):
        self.received: int | None = None
        self._job: subprocess.Popen | None = None

    def run(self, job: Job) -> int:
        """Its exit status; 128 and the number of the signal where one ended it."""
        with subprocess.Popen([sys.executable, str(TRAIN), *job.arguments], start_new_session=True) as process:
            self._job = process
            try:
                if self.received is not None:  # while it was being started
                    process.send_signal(PASSED_ON[self.received])
                status = process.wait()
            finally:
                self._job = None
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return status if status >= 0 else 128 - status

    @contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        under_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        numbers = [number for number in PASSED_ON if not (number == signal.SIGHUP and under_nohup)]
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if self._job is not None:
            self._job.send_signal(PASSED_ON[number])
