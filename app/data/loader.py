"""A loader whose next batch depends on how many were trained on, and on nothing else.

Lightning restores the number of batches that went into the weights; this loader asks for that number when the first
batch of an epoch is asked for, and begins there. So a run that was killed goes on with exactly the next batch: what
workers had read ahead, or how an epoch cut short was counted, does not enter.
"""

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from app.data.batching import LengthBatchSampler, collate
from app.data.loader_settings import LoaderSettings
from app.errors import UserError
from app.types import ProteinBatch

log = logging.getLogger(__name__)

_LAST_STEP = 60  # seconds that a worker still serves after a SIGTERM


class ProteinDataset(Protocol):
    """What a kind of data offers. It may also have `augment(features, random) -> features`: a random variant of an
    example, drawn from the numpy generator it is given."""

    names: Sequence[str]
    lengths: Sequence[int]

    def __getitem__(self, index: int) -> dict:
        """Features of one example (see `collate`). Raises UserError with the reason where it cannot be used."""

    def draw(self, epoch: int, seed: int) -> Sequence[int]:
        """The examples of an epoch, a pure function of (epoch, seed)."""


class Examples(Dataset):
    """The data set as workers see it. A key is (epoch, index): a worker outlives epochs and cannot be told of them."""

    MAX_TRIES = 20

    def __init__(self, dataset: ProteinDataset, seed: int):
        self.dataset, self.seed = dataset, seed
        self.bad: set[int] = set()

    def __getitem__(self, key: tuple[int, int]) -> dict:
        """Features of the example; where its file is bad, those of a neighbour in length.

        Something must take its place: all ranks need the batches they counted on, none of them empty. Raises UserError
        where `MAX_TRIES` neighbours are bad too.
        """
        epoch, asked = key
        for index in self._candidates(asked):
            try:
                features = self.dataset[index]
            except UserError as error:
                self.bad.add(index)
                log.warning("dropped %s: %s", self.dataset.names[index], error)
                continue
            if hasattr(self.dataset, "augment"):
                features = self.dataset.augment(features, np.random.default_rng((self.seed, epoch, index)))
            return features
        raise UserError(f"data: {self.MAX_TRIES} examples in a row cannot be read; the reasons are above")

    def _candidates(self, asked: int) -> Iterator[int]:
        if asked not in self.bad:
            yield asked
        excess = np.asarray(self.dataset.lengths) - self.dataset.lengths[asked]
        nearest = np.lexsort((np.abs(excess), excess > 0))  # a longer one could burst the batch's budget: those last
        yield from [index for index in nearest.tolist() if index not in self.bad][: self.MAX_TRIES]


class ResumableLoader:
    """Batches of `dataset` for one rank, an epoch at each iteration, from wherever `position` says training stands.

    position: -> (batches trained on since the run began, of these in the present epoch). Asked when the first batch of
    an iteration is asked for, not before: Lightning makes iterators before it has put its counters in order.

    `len` is that of the whole epoch, as Lightning expects also when it resumes in the middle of one.
    """

    def __init__(
        self,
        dataset: ProteinDataset,
        settings: LoaderSettings,
        position: Callable[[], tuple[int, int]],
        rank: int = 0,
        world_size: int = 1,
    ):
        self.batches = LengthBatchSampler(dataset.lengths, dataset.draw, settings, rank, world_size)
        self.position = position
        self._loader = DataLoader(
            Examples(dataset, settings.seed),
            batch_sampler=_Keys(self),
            collate_fn=collate,
            num_workers=settings.num_workers,
            persistent_workers=settings.num_workers > 0,
            # forking a process that has touched Metal crashes it
            multiprocessing_context="spawn" if settings.num_workers > 0 and sys.platform == "darwin" else None,
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),  # its own: torch would draw from the global one at every epoch
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[ProteinBatch]:
        try:
            yield from self._loader  # a generator: nothing starts before the first batch is asked for
        except UserError as error:  # from a worker it comes with that one's traceback
            raise UserError(str(error).strip().rpartition("UserError: ")[2]) from None

    def close(self) -> None:
        """End the workers."""
        self._loader = ()

    # Lightning stores this in the checkpoint and hands it back when it resumes.

    def state_dict(self) -> dict[str, str]:
        return {"batches": self.batches.fingerprint()}

    def load_state_dict(self, state: dict[str, str]) -> None:
        if state.get("batches") != self.batches.fingerprint() and self.batches.rank == 0:
            log.warning(
                "the data, their loader settings or the number of devices differ from the checkpoint's: training goes"
                " on, with other batches than the run would have had"
            )


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
        done, in_epoch = self.loader.position()
        for epoch, batch in self.loader.batches.stream(done, len(self.loader) - in_epoch):
            yield [(epoch, index) for index in batch]

    def __len__(self) -> int:
        return len(self.loader)
