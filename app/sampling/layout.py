"""Chains and numbers of the residues of a design: as the model sees them, and as they are written."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from app.structure.write import CHAIN_LETTERS


@dataclass(frozen=True)
class Layout:
    """N residues, on the CPU."""

    chain_idx: Tensor  # [N] int64, 1, 2, ...
    res_idx: Tensor  # [N] int64, 1 at the start of each chain, gaps kept: what the model sees
    numbers: np.ndarray  # [N] int64, what is written
    ins_codes: np.ndarray  # [N] str, the insertion codes that are written, "" for none
    chain_ids: Sequence[str]  # one letter each

    @classmethod
    def counted(cls, lengths: Sequence[int]) -> "Layout":
        """Chains A, B, ... of these lengths, each counted from 1."""
        chain_idx = torch.repeat_interleave(torch.arange(1, len(lengths) + 1), torch.tensor(lengths))
        res_idx = torch.cat([torch.arange(1, length + 1) for length in lengths])
        codes = np.full(len(res_idx), "")
        return cls(chain_idx, res_idx, res_idx.numpy(), codes, CHAIN_LETTERS[: len(lengths)])

    @property
    def chains(self) -> dict[str, int]:
        """Residues of each chain, by its name."""
        return self.count(torch.ones_like(self.chain_idx, dtype=torch.bool))

    def count(self, mask: Tensor) -> dict[str, int]:
        """Of the residues of a mask [N] bool, how many each chain has, by its name."""
        return {name: int((mask & (self.chain_idx == k)).sum()) for k, name in enumerate(self.chain_ids, start=1)}

    def name(self, index: int) -> str:
        """Chain, number and insertion code of a residue, as in "A52"."""
        return f"{prefix(self.chain_ids[self.chain_idx[index] - 1])}{self._label(index)}"

    def spans(self, mask: Tensor) -> dict[str, list[str]]:
        """The residues of a mask [N] bool by chain, runs of them as first and last: {"A": ["10-35", "40"]}.

        A run does not go on over residues that the file lacks. Chains without any are left out.
        """
        found: dict[str, list[str]] = {}
        for index, name in enumerate(self.chain_ids, start=1):
            own = ((self.chain_idx == index) & mask).nonzero()[:, 0]
            if not len(own):
                continue
            follows = (own.diff() == 1) & (self.res_idx[own].diff() == 1)
            runs = np.split(own.numpy(), np.flatnonzero(~follows.numpy()) + 1)
            found[name] = [self._run(run) for run in runs]
        return found

    def _run(self, run: np.ndarray) -> str:
        first, last = self._label(run[0]), self._label(run[-1])
        return first if len(run) == 1 else f"{first}-{last}"

    def _label(self, index: int) -> str:
        return f"{self.numbers[index]}{self.ins_codes[index]}"


def prefix(chain: str) -> str:
    """Of the names of a chain's residues: a colon parts a number from a digit, as in "1:52"."""
    return f"{chain}:" if chain[-1:].isdigit() else chain
