"""Work in a process of its own: memory is counted from a clean start, and a crash takes nothing else down."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import torch

from app import environment
from app.config.keys import one_line
from app.devices import is_out_of_memory
from app.environment import EnvironmentSettings
from app.errors import UserError

PRELOADED = ["app.bench.measure", "app.bench.doctor"]
"""Imported once, by the process from which all others are forked. It is a fresh one, not a fork of this."""

_METHODS = ("forkserver", "spawn") if sys.platform == "linux" else ("spawn",)
"""Tried in turn. A process forked after something in its server has looked for a GPU cannot use one; nor does a Mac's
GPU bear a fork. One that is spawned can, after seconds of imports."""

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # else torch starts CUDA to see whether there is a GPU
get_context("forkserver").set_forkserver_preload(PRELOADED)


class Failed(Exception):
    """What went wrong in the other process, in words."""


class Poisoned(Failed):
    """A GPU's error after which its process can do no more."""


class Apart:
    """`with Apart() as apart: apart(function, *arguments)`: every call in the same other process, ended with the block.

    It starts with the first call, and again after a crash or a GPU's error: forked from a process that has imported
    everything and run nothing, since imports take seconds. Its float32 products are as precise as those of the process
    that calls. Arguments and results are pickled; `function` is one of a module. Raises UserError where that did,
    Failed for all else.
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
        resource_tracker.ensure_running()  # which would unblock Ctrl-C below
        for method in _METHODS:
            context = get_context(method)
            connection, its = context.Pipe()
            settings = EnvironmentSettings(matmul_precision=torch.get_float32_matmul_precision())
            process = context.Process(target=_serve, args=(its, settings))
            with _deaf_to_ctrl_c():
                (forkserver.ensure_running if method == "forkserver" else process.start)()
            if method == "forkserver":
                process.start()  # waits until the server has imported everything
            self._process, self._connection = process, connection
            its.close()  # so that the end of the process is the end of the connection
            if self._can_use_a_gpu():
                return
            self.close()
        raise Failed("no process could be started that can use the GPU")

    def _can_use_a_gpu(self) -> bool:
        try:
            return self._connection.recv()
        except (EOFError, ConnectionError):
            return False


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started here never hears it, as a terminal sends it to all and who started them ends them. It reaches
    this process when the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, settings: EnvironmentSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):  # who started this one is gone
        connection.send(can_use_a_gpu())
        environment.apply(settings)
        while True:
            function, arguments = connection.recv()
            connection.send(attempt(function, arguments))


def can_use_a_gpu() -> bool:
    """Whether CUDA, where there is any, can still be started here: torch counts even a look for GPUs before a fork."""
    return not torch.cuda._is_in_bad_fork()


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
    if is_out_of_memory(error):
        return False
    if any(words in str(error) for words in ("CUDA error", "CUDA driver error", "Triton Error [CUDA]")):
        return True
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except Exception:  # packages have words of their own for what this finds
        return True
    return False


def told(error: Exception) -> str:
    """An exception in one short line."""
    return one_line(f"{type(error).__name__}: {error}")[:200]
