"""Work in a process of its own: memory is counted from a clean start, and a crash takes nothing else down."""

import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from app.config.keys import one_line
from app.errors import UserError

os.environ.setdefault(
    "PYTORCH_NVML_BASED_CUDA_CHECK", "1"
)  # else looking for a GPU starts CUDA, which no fork survives
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["app.bench.measure", "app.bench.doctor"])


class Failed(Exception):
    """What went wrong in the other process, in words."""


class Poisoned(Failed):
    """A GPU's error after which its process can do no more."""


class Apart:
    """`with Apart() as apart: apart(function, *arguments)`: every call in the same other process, ended with the block.

    It starts with the first call, and again after a crash or a GPU's error: forked from a process that has imported
    everything and run nothing, since imports take seconds. Arguments and results are pickled; `function` is one of a
    module. Raises UserError where that did, Failed for all else.
    """

    def __init__(self):
        self._process, self._connection = None, None

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process, self._connection = None, None

    def __call__(self, function: Callable, *arguments: Any) -> Any:
        if self._process is None:
            self._start()
        try:
            self._connection.send((function, arguments))
            value, error = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            status = self._process.exitcode
            self.close()
            raise Failed(f"its process crashed (exit status {status})") from None
        if isinstance(error, Poisoned):
            self.close()
        if error is not None:
            raise error
        return value

    def _start(self) -> None:
        self._connection, its = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(its,))
        self._process.start()
        its.close()  # so that the end of the process is the end of the connection


def _serve(connection: Connection) -> None:
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        connection.send(attempt(function, arguments))


def attempt(function: Callable, arguments: tuple) -> tuple[Any, Exception | None]:
    """The result, or the error in words: many of the packages' own cannot be pickled."""
    try:
        return function(*arguments), None
    except UserError as error:
        return None, error
    except Exception as error:
        return None, (Poisoned if poisons(error) else Failed)(told(error))


def poisons(error: Exception) -> bool:
    """Whether every later call on the GPU would fail with the same error, such as an illegal memory access."""
    text = str(error)
    return ("CUDA error" in text or "Triton Error [CUDA]" in text) and "out of memory" not in text


def told(error: Exception) -> str:
    """An exception in one short line."""
    return one_line(f"{type(error).__name__}: {error}")[:200]
