"""A part of a data set as a data set of its own."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from app.data.strings import Strings


class Whole(Protocol):
    """A data set that has parts."""

    names: Sequence[str]
    lengths: Sequence[int]

    def __getitem__(self, index: int) -> dict: ...


class Part:
    """Some examples of a data set.

    names, lengths: of these. An epoch's draw is all of them, or one of each cluster.
    """

    def __init__(self, whole: Whole, indices: np.ndarray, clusters: np.ndarray | None = None):
        """indices: [examples] in `whole`. clusters: [examples], where one of each is to be drawn."""
        self.whole, self._indices, self._clusters = whole, indices, clusters
        names = whole.names if isinstance(whole.names, Strings) else Strings.pack(whole.names)
        self.names = names.select(indices)
        self.lengths = np.asarray(whole.lengths)[indices]
        if hasattr(whole, "contents"):
            self.contents = whole.contents[indices]
        if hasattr(whole, "augment"):
            self.augment = whole.augment

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.whole[int(self._indices[index])]

    def draw(self, epoch: int, seed: int) -> np.ndarray:
        """The examples of an epoch, a pure function of (epoch, seed): [examples] or [clusters] indices."""
        return np.arange(len(self)) if self._clusters is None else one_of_each(self._clusters, epoch, seed)


def some_of(names: Sequence[str], number: int | None) -> np.ndarray:
    """Indices of so many of these names (None: all), in an order that depends on the names alone: of a set that grows,
    much the same ones are chosen."""

    def place(index: int) -> bytes:
        return hashlib.sha256(names[index].encode(errors="surrogateescape")).digest()  # a file's name may be no UTF-8

    return np.array(sorted(range(len(names)), key=place)[:number], int)


def one_of_each(clusters: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """A random member of each cluster: [clusters] indices into `clusters` [examples]."""
    by_cluster = clusters.argsort(kind="stable")
    sizes = np.unique(clusters, return_counts=True)[1]
    chosen = np.random.default_rng((seed, epoch)).random(len(sizes)) * sizes
    return by_cluster[np.cumsum(sizes) - sizes + chosen.astype(np.int64)]
