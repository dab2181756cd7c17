"""Work on all cores, where there is enough of it to be worth starting processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from app.errors import UserError


class Pool:
    """A context. workers: None is a process a core; with 1 everything runs in this one."""

    def __init__(self, workers: int | None):
        self.workers = workers or _cores()
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=exception[0] is None, cancel_futures=True)

    def map(self, function: Callable, tasks: Sequence[Any], enough: bool) -> Iterator[Any]:
        """Results in the order of the tasks, each as soon as it is there. enough: it is worth starting processes.

        function: of a module, without side effects. Raises UserError where a process was killed.
        """
        if not enough or self.workers == 1 or len(tasks) < 2:
            yield from map(function, tasks)
            return
        if self._executor is None:  # started afresh: safe beside threads
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start_worker)
        try:
            yield from self._executor.map(function, tasks)
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, perhaps for lack of memory: use --workers 1; what is done is kept"
            ) from None


def _cores() -> int:
    """Those that this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
