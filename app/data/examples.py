"""The data set as the processes that read it see it: what cannot be used gives way, and is reported."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from app.chem.residues import NUM_TOKENS
from app.data.batching import collate
from app.errors import UserError
from app.types import ProteinBatch

log = logging.getLogger(__name__)


class ProteinDataset(Protocol):
    """What a kind of data offers. It may also have

    `augment(features, random) -> features`: a random variant of an example, drawn from the numpy generator it is given;
    `split(seen) -> (training, validation or None)`: data sets that share no cluster; without it, all is trained on;
    `unreadable`: (name, reason) of what gave no example at all;
    `contents` [examples, ...]: an array that tells their contents from others, as hashes.
    """

    names: Sequence[str]
    lengths: Sequence[int]

    def __getitem__(self, index: int) -> dict:
        """Features of one example (see `collate`). Whatever it raises costs the example, not the run."""

    def draw(self, epoch: int, seed: int) -> Sequence[int]:
        """The examples of an epoch, a pure function of (epoch, seed)."""


class Read(NamedTuple):
    batch: ProteinBatch
    dropped: dict[str, str]  # name -> reason of what was found unusable in reading it


class Dropped(dict[str, str]):
    """Name -> reason of the examples that could not be used."""

    def note(self, found: Mapping[str, str]) -> None:
        """Add them, and log those that are new."""
        for name, reason in found.items():
            if name not in self:
                self[name] = reason
                log.warning("dropped %s: %s", name, reason)


class Examples(Dataset):
    """A key is (epoch, index): a worker outlives epochs and cannot be told of them."""

    def __init__(self, dataset: ProteinDataset, seed: int):
        self.dataset, self.seed = dataset, seed
        self.bad: dict[int, str] = {}  # index -> reason

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Read:
        """A batch. (Torch's loader asks for a batch at a time where it can.)"""
        known = len(self.bad)
        batch = collate([self[key] for key in keys])
        return Read(batch, {self.dataset.names[index]: reason for index, reason in list(self.bad.items())[known:]})

    def __getitem__(self, key: tuple[int, int]) -> dict:
        """Features of the example; where it cannot be used, those of a neighbour in length.

        Something must take its place: all ranks need the batches they counted on, none of them empty. Which neighbour
        it is depends on the data alone. Raises UserError where no example can be used.
        """
        epoch, asked = key
        for index in self._candidates(asked):
            try:
                return self._usable(index, epoch)
            except Exception as error:  # whatever is wrong with one example, the run goes on
                self.bad[index] = _reason(error)
        index, reason = next(iter(self.bad.items()))
        raise UserError(f"data: not one example can be used: {self.dataset.names[index]}: {reason}")

    def _usable(self, index: int, epoch: int) -> dict:
        features = self.dataset[index]
        if hasattr(self.dataset, "augment"):
            features = self.dataset.augment(features, np.random.default_rng((self.seed, epoch, index)))
        refuse_unusable(features, int(self.dataset.lengths[index]))
        return features

    def _candidates(self, asked: int) -> Iterator[int]:
        if asked not in self.bad:
            yield asked
        excess = np.asarray(self.dataset.lengths) - self.dataset.lengths[asked]
        nearest = np.lexsort((np.abs(excess), excess > 0))  # a longer one could burst the batch's budget: those last
        yield from (index for index in nearest.tolist() if index not in self.bad)


def refuse_unusable(features: dict, length: int) -> None:
    """Raises UserError for features that would spoil a batch or the weights: of another length than was announced, not
    finite, residue types that do not exist."""
    tensors = {name: value for name, value in features.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        if len(value) != length:
            raise UserError(f"{name} is of {len(value)} residues, not of {length}")
        if not bool(value.isfinite().all()):
            raise UserError(f"{name} holds NaN or infinite numbers")
    aatypes = tensors["aatypes_1"]
    if bool(((aatypes < 0) | (aatypes >= NUM_TOKENS)).any()):
        raise UserError(f"aatypes_1 holds residue types beyond 0 to {NUM_TOKENS - 1}")
    if not bool((tensors["res_mask"] > 0).any()):
        raise UserError("no residue is present")


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return said if isinstance(error, UserError) else f"unexpected {type(error).__name__}: {said}"
