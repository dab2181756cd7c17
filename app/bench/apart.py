"""Work in a process of its own: memory is counted from a clean start, and a crash takes nothing else down."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from app.config.keys import one_line
from app.errors import UserError

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["app.bench.measure", "app.bench.doctor"])


class Failed(Exception):
    """What went wrong in the other process, in words."""


class Poisoned(Failed):
    """A GPU's error after which its process can do no more."""


class Apart:
    """`with Apart() as apart: apart(function, *arguments)`: every call in the same other process.

    It starts with the first call, and again after a crash or a GPU's error: forked from a process that has imported
    everything and run nothing, since imports take seconds. Arguments and results are pickled; `function` is one of a
    module. Raises UserError where that did, Failed for all else.
    """

    def __init__(self):
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, function: Callable, *arguments: Any) -> Any:
        self._pool = self._pool or ProcessPoolExecutor(1, _CONTEXT)
        try:
            value, error = self._pool.submit(_attempt, function, arguments).result()
        except BrokenProcessPool:
            self._close()
            raise Failed("its process crashed") from None
        if isinstance(error, Poisoned):
            self._close()
        if error is not None:
            raise error
        return value

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None


def _attempt(function: Callable, arguments: tuple) -> tuple[Any, Exception | None]:
    """Errors are told in words: many of the packages' own cannot be pickled."""
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
