"""Which examples make a batch, in which order, and how they are padded to one length."""

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from app.chem.residues import UNKNOWN
from app.data.loader_settings import LoaderSettings
from app.errors import UserError
from app.types import ProteinBatch

_FLOATS = ("res_mask", "diffuse_mask", "plddt_mask", "trans_1", "rotmats_1")
_INTEGERS = ("chain_idx", "res_idx", "aatypes_1")


def collate(examples: Sequence[dict]) -> ProteinBatch:
    """Stack examples, padded at the end to the longest.

    examples: features of one protein each, without batch dimension: res_mask, diffuse_mask, plddt_mask, chain_idx,
    res_idx, aatypes_1 [N], trans_1 [N, 3] (angstrom), rotmats_1 [N, 3, 3], and name.

    Padding is 0 in masks, indices and translations, the identity in rotations, and the unknown residue (20) in
    aatypes: values that every table and every formula accepts, so that masked rows stay finite.
    """
    length = max(len(example["res_mask"]) for example in examples)
    padding = {"rotmats_1": torch.eye(3), "aatypes_1": torch.tensor(UNKNOWN)}

    def stacked(key: str, dtype: torch.dtype) -> Tensor:
        rows = [torch.as_tensor(example[key], dtype=dtype) for example in examples]
        out = padding.get(key, torch.tensor(0)).to(dtype).expand(len(rows), length, *rows[0].shape[1:]).clone()
        for padded, row in zip(out, rows, strict=True):
            padded[: len(row)] = row
        return out

    return ProteinBatch(
        **{key: stacked(key, torch.float32) for key in _FLOATS},
        **{key: stacked(key, torch.int64) for key in _INTEGERS},
        names=[example["name"] for example in examples],
    )


class LengthBatchSampler:
    """Batches of like length, within `max_batch_size` examples and B * N^2 <= `max_residues_squared` (at least one).

    N is the longest length of the bucket in the data set. Membership and order of an epoch's batches depend on (seed,
    epoch) only. Every rank makes the same list and takes each `world_size`-th batch of it; the list is brought to
    the same length in every epoch and on every rank by repeating batches, or, where an epoch's draw gives more than
    epoch 0's did, by leaving the surplus out. So batch t of a run is batch t % len of epoch t // len, whatever
    happened before, and any run can be continued anywhere.

    lengths: [examples]. draw: (epoch, seed) -> the indices of the examples used in that epoch. Raises UserError where
    there are none.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        draw: Callable[[int, int], Sequence[int]],
        settings: LoaderSettings,
        rank: int = 0,
        world_size: int = 1,
    ):
        lengths = np.asarray(lengths, dtype=np.int64)
        if len(lengths) == 0 or len(draw(0, settings.seed)) == 0:
            raise UserError("data: no usable example; loosen the filters, or list what is dropped and why: data check")
        self.draw, self.settings, self.rank, self.world_size = draw, settings, rank, world_size
        self.bucket_of = (lengths - 1) // settings.bucket
        longest = np.zeros(self.bucket_of.max() + 1, dtype=np.int64)
        np.maximum.at(longest, self.bucket_of, lengths)
        within_budget = settings.max_residues_squared // np.maximum(longest, 1) ** 2
        self.batch_size_of = np.clip(within_budget, 1, settings.max_batch_size)
        self._per_rank = -(-len(self._partition(0)) // world_size)

    def __len__(self) -> int:
        """Batches an epoch on each rank."""
        return self._per_rank

    def batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of an epoch, in order: indices of examples."""
        everyones = self._partition(epoch)
        places = range(self.rank, self._per_rank * self.world_size, self.world_size)
        return [everyones[place % len(everyones)] for place in places]

    def stream(self, start: int, count: int) -> Iterator[tuple[int, list[int]]]:
        """(epoch, batch) for `count` batches of the run from the `start`-th on, over as many epochs as that takes."""
        while count > 0:
            epoch, first = divmod(start, len(self))
            batches = self.batches(epoch)[first : first + count]
            yield from ((epoch, batch) for batch in batches)
            start, count = start + len(batches), count - len(batches)

    def fingerprint(self) -> str:
        """Tells whether two samplers give the same batches, by those of epoch 0."""
        return hashlib.sha256(repr((self._partition(0), self.settings.seed, self.world_size)).encode()).hexdigest()[:16]

    def _partition(self, epoch: int) -> list[list[int]]:
        """All ranks' batches of an epoch."""
        random = np.random.default_rng((self.settings.seed, epoch))
        examples = random.permutation(np.asarray(self.draw(epoch, self.settings.seed), dtype=np.int64))
        examples = examples[np.argsort(self.bucket_of[examples], kind="stable")]
        batches = []
        for members in np.split(examples, np.flatnonzero(np.diff(self.bucket_of[examples])) + 1):
            size = self.batch_size_of[self.bucket_of[members[0]]]
            batches += [members[first : first + size].tolist() for first in range(0, len(members), size)]
        return [batches[place] for place in random.permutation(len(batches))]
