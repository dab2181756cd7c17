"""Signals that end a run, and how to speak while one is being handled."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what schedulers send before they kill; what SLURM is told to send some time before that. Of several that
ranks of one run received, the last of these counts."""


def tell(text: str) -> None:
    """To standard error, as print is not safe in a signal handler.

    Where that is a terminal which has hung up, everything said from here on would end the run before it has saved.
    """
    try:
        os.write(2, text.encode())
    except OSError:
        same = os.path.samestat(os.fstat(1), os.fstat(2))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2) if same else (2,):
            os.dup2(nowhere, stream)
        os.close(nowhere)


class _Heard:
    """Python's own handler of Ctrl-C, and whether it was called."""

    came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.default_int_handler(number, frame)


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """A context, or a function so decorated, that Ctrl-C ends in KeyboardInterrupt where it would end in an error: for
    work with numpy's functions of strings, which make a TypeError of it. It may hold another one."""
    before = signal.getsignal(signal.SIGINT)
    heard = before if isinstance(before, _Heard) else _Heard()
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, heard)
    try:
        yield
    except Exception as error:
        if heard.came:
            raise KeyboardInterrupt from error
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
