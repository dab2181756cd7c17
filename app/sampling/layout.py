"""Chains and numbers of the residues of a design: as the model sees them, as the file has them, and as PDB can."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from app.structure.write import CHAIN_LETTERS

_PDB_NUMBERS = (-999, 9999)  # residue numbers that a PDB file can hold


@dataclass(frozen=True)
class Layout:
    """N residues, on the CPU."""

    chain_idx: Tensor  # [N] int64, 1, 2, ...
    res_idx: Tensor  # [N] int64, 1 at the start of each chain, gaps kept: what the model sees
    numbers: np.ndarray  # [N] int64, the file's
    ins_codes: np.ndarray  # [N] str, the file's insertion codes, "" for none
    chain_ids: Sequence[str]  # the file's names of chains

    @classmethod
    def counted(cls, lengths: Sequence[int]) -> "Layout":
        """Chains A, B, ... of these lengths, each counted from 1."""
        chain_idx = torch.repeat_interleave(torch.arange(1, len(lengths) + 1), torch.tensor(lengths))
        res_idx = torch.cat([torch.arange(1, length + 1) for length in lengths])
        codes = np.full(len(res_idx), "")
        return cls(chain_idx, res_idx, res_idx.numpy(), codes, CHAIN_LETTERS[: len(lengths)])

    def for_pdb(self) -> "Layout":
        """What a PDB file can hold: numbers beyond its columns are counted from 1, long chain names become letters."""
        fitting, (low, high) = self, _PDB_NUMBERS
        if self.numbers.min() < low or self.numbers.max() > high:
            counted = self.res_idx.numpy() if self.res_idx.max() <= high else np.arange(1, len(self.numbers) + 1)
            fitting = replace(fitting, numbers=counted, ins_codes=np.full(len(counted), ""))
        if any(len(name) != 1 for name in self.chain_ids):
            free = iter(letter for letter in CHAIN_LETTERS if letter not in self.chain_ids)
            letters = tuple(name if len(name) == 1 else next(free, "?") for name in self.chain_ids)
            fitting = replace(fitting, chain_ids=letters)
        return fitting

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
