"""Which examples make a batch, in which order, and how they are padded to one length."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from app.chem.residues import UNKNOWN
from app.data.loader_settings import LoaderSettings
from app.data.steps import EACH_BATCH, StepSettings, refuse_too_many, shares_of, steps_of
from app.errors import UserError
from app.types import ProteinBatch, Share

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
    epoch 0's did, by leaving the surplus out. So any run can be continued anywhere.

    lengths: [examples]. draw: (epoch, seed) -> the indices of the examples used in that epoch. steps: what makes an
    optimizer step. Raises UserError where there are no examples, or fewer than a step is to have.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        draw: Callable[[int, int], Sequence[int]],
        settings: LoaderSettings,
        rank: int = 0,
        world_size: int = 1,
        steps: StepSettings = EACH_BATCH,
    ):
        lengths = np.asarray(lengths, dtype=np.int64)
        if len(lengths) == 0 or len(draw(0, settings.seed)) == 0:
            raise UserError("data: no usable example; loosen the filters, or list what is dropped and why: data check")
        self.draw, self.settings, self.rank, self.world_size = draw, settings, rank, world_size
        self.lengths, self.steps = lengths, steps
        self.bucket_of = (lengths - 1) // settings.bucket
        longest = np.zeros(self.bucket_of.max() + 1, dtype=np.int64)
        np.maximum.at(longest, self.bucket_of, lengths)
        within_budget = settings.max_residues_squared // np.maximum(longest, 1) ** 2
        self.batch_size_of = np.clip(within_budget, 1, settings.max_batch_size)
        self._per_rank = -(-len(self._partition(0)) // world_size)
        refuse_too_many(self._residues(self._of_all_ranks(0)), steps)

    def __len__(self) -> int:
        """Batches an epoch on each rank."""
        return self._per_rank

    def batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of an epoch, in order: indices of examples."""
        return [batches[self.rank] for batches in self._of_all_ranks(epoch)]

    def shares(self, epoch: int) -> list[Share]:
        """The part of each of this rank's batches of an epoch in its optimizer step."""
        everyones = self._of_all_ranks(epoch)
        counts = np.array([[len(batch) for batch in batches] for batches in everyones])
        return shares_of(counts, self._residues(everyones), self.steps, self.rank)

    def steps_an_epoch(self) -> int:
        """Optimizer steps of epoch 0; with a target in residues those of others may be one more or less."""
        return len(steps_of(self._residues(self._of_all_ranks(0)), self.steps))

    def next_step(self, epoch: int, done: int, of: int) -> int:
        """After how many batches of an epoch the first optimizer step begins for which at least `done` of `of` parts
        of the epoch are done; `len(self)` is the begin of the next epoch."""
        ends = np.cumsum(steps_of(self._residues(self._of_all_ranks(epoch)), self.steps))
        at_least = -(-done * len(self) // of)
        return int(ends[np.searchsorted(ends, at_least)])

    def _of_all_ranks(self, epoch: int) -> list[list[list[int]]]:
        """Batches of an epoch that are trained on together, one on each rank."""
        everyones = self._partition(epoch)
        places = range(0, self._per_rank * self.world_size, self.world_size)
        return [[everyones[(place + rank) % len(everyones)] for rank in range(self.world_size)] for place in places]

    def _residues(self, everyones: list[list[list[int]]]) -> list[int]:
        return [int(sum(self.lengths[batch].sum() for batch in batches)) for batches in everyones]

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
