"""A loader whose next batch depends on where training stands in which epoch, and on nothing else.

Lightning restores the number of batches that went into the weights; this loader asks for it when the first batch of an
epoch is asked for, and begins there. So a run that was killed goes on with exactly the next batch: what workers had
read ahead does not enter.
"""

import hashlib
import logging
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from app.data.batching import LengthBatchSampler
from app.data.examples import Dropped, Examples, ProteinDataset, Read
from app.data.loader_settings import LoaderSettings
from app.data.steps import EACH_BATCH, StepSettings
from app.errors import OfOneProcess, UserError
from app.types import ProteinBatch, Share

log = logging.getLogger(__name__)

_LAST_STEP = 60  # seconds that a worker still serves after a SIGTERM


class ResumableLoader:
    """Batches of `dataset` for one rank, an epoch at each iteration, from wherever `position` says training stands.

    position: -> (epoch, how many of its batches were trained on). Asked when the first batch of an iteration is asked
    for, not before: Lightning makes iterators before it has put its counters in order.

    `len` is that of the whole epoch, as Lightning expects also when it resumes in the middle of one.

    waited: seconds that batches were waited for. dropped: the examples that could not be used, each logged when it was
    first met, whichever process met it; loaders may share one.
    """

    def __init__(
        self,
        dataset: ProteinDataset,
        settings: LoaderSettings,
        position: Callable[[], tuple[int, int]],
        rank: int = 0,
        world_size: int = 1,
        dropped: Dropped | None = None,
        steps: StepSettings = EACH_BATCH,
    ):
        self.batches = LengthBatchSampler(dataset.lengths, dataset.draw, settings, rank, world_size, steps)
        self._dataset = dataset
        self._fingerprint: dict[str, str] | None = None  # it does not change, and takes a while
        self.position = position
        self.waited = 0.0
        self.dropped = Dropped() if dropped is None else dropped
        self.shares: deque[Share] = deque()  # of the batches that are being read
        workers = settings.workers(len(dataset.names))
        self._loader = DataLoader(
            Examples(dataset, settings.seed),
            batch_sampler=_Keys(self),
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            # forking a process that has touched Metal crashes it
            multiprocessing_context="spawn" if workers > 0 and sys.platform == "darwin" else None,
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),  # its own: torch would draw from the global one at every epoch
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[ProteinBatch]:
        batches = None  # nothing starts before the first batch is asked for
        while True:
            began = time.perf_counter()
            try:
                if batches is None:
                    self.shares.clear()
                    batches = iter(self._loader)
                read: Read = next(batches)
            except StopIteration:
                return
            except UserError as error:  # from a worker it comes with that one's traceback
                raise OfOneProcess(str(error).strip().rpartition("UserError: ")[2]) from None
            self.waited += time.perf_counter() - began
            self.dropped.note(read.dropped)
            read.batch.share = self.shares.popleft()
            yield read.batch

    def close(self) -> None:
        """End the workers, which the traceback of an error would keep. One that waits for what a killed one held does
        not end by itself: torch waits ten seconds for it."""
        reading, self._loader = getattr(self._loader, "_iterator", None), ()
        if reading is not None:
            reading._shutdown_workers()
            for worker in reading._workers:
                worker.kill()
                worker.join()

    # Lightning stores this in the checkpoint and hands it back when it resumes.

    def state_dict(self) -> dict[str, Any]:
        return {**self.fingerprint(), "dropped": dict(self.dropped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dropped.update(state.get("dropped", {}))
        own = self.fingerprint()
        known = {name: state[name] for name in own if name in state}  # versions before knew fewer
        if known != {name: own[name] for name in known} and self.batches.rank == 0:
            log.warning(
                "the data, their loader settings or the number of devices differ from the checkpoint's: training goes"
                " on with the next optimizer step, of other batches than the run would have had"
            )

    def fingerprint(self) -> dict[str, str]:
        """What tells whether two loaders give the same batches: of which indices, and of which examples."""
        if self._fingerprint is None:
            examples = hashlib.sha256("\0".join(self._dataset.names).encode("utf-8", "surrogateescape"))
            examples.update(np.asarray(self._dataset.lengths, dtype=np.int64).tobytes())
            examples.update(getattr(self._dataset, "contents", np.empty(0)).tobytes())
            self._fingerprint = {"batches": self.batches.fingerprint(), "examples": examples.hexdigest()[:16]}
        return self._fingerprint


def _as_it_is(read: Read) -> Read:
    return read


def _leave_signals_to_the_run(_worker: int) -> None:
    """Ctrl-C and a scheduler's signals reach all processes of a run; when to stop is for the one that trains to decide,
    which needs its workers until the step under way is done. It ends them itself, at the latest by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_LAST_STEP))


class _Keys:
    """What a loader's workers are to read: (epoch, index) of every example of a batch."""

    def __init__(self, loader: ResumableLoader):
        self.loader = loader

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, done = self.loader.position()
        batches = self.loader.batches
        for batch, share in zip(batches.batches(epoch)[done:], batches.shares(epoch)[done:], strict=True):
            self.loader.shares.append(share)
            yield [(epoch, index) for index in batch]

    def __len__(self) -> int:
        return len(self.loader)
