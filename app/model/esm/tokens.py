"""Residues to the language model's tokens and back: one sequence a protein, its chains joined by linkers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.chem.residues import AATYPES_WITH_X, MASK_TOKEN
from app.errors import UserError
from app.types import NoisyBatch


@dataclass(frozen=True)
class Alphabet:
    """Indices of a vocabulary's tokens."""

    start: int  # <cls>
    end: int  # <eos>
    padding: int
    mask: int
    glycine: int
    residues: Tensor  # [21] int64, in the order of our residue types, X last

    @classmethod
    def of(cls, vocabulary: Sequence[str], where: str) -> "Alphabet":
        """Raises UserError, naming `where`, for a vocabulary that lacks a token."""
        index = {token: place for place, token in enumerate(vocabulary)}
        if lacking := [token for token in ("<cls>", "<eos>", "<pad>", "<mask>", *AATYPES_WITH_X) if token not in index]:
            raise UserError(f"{where}: vocab.txt is not that of ESM-2, it lacks {', '.join(lacking)}")
        residues = torch.tensor([index[letter] for letter in AATYPES_WITH_X])
        return cls(index["<cls>"], index["<eos>"], index["<pad>"], index["<mask>"], index["G"], residues)


@dataclass(frozen=True)
class Tokens:
    """A batch as the language model reads it, on the CPU."""

    ids: Tensor  # [B, T] int64
    place: Tensor  # [B, N] int64, where in `ids` a residue stands; 0 for absent ones

    def equal(self, other: "Tokens") -> bool:
        return torch.equal(self.ids, other.ids) and torch.equal(self.place, other.place)


def tokenize(batch: NoisyBatch, alphabet: Alphabet, linker: int) -> Tokens:
    """The noisy tokens: <cls>, the residues that are there, <eos>, padding.

    Between two chains stand `linker` glycines, as ESMFold has it (Lin et al. 2023). The language model knows positions
    by rotary embeddings only, so that the linker's length is also the distance between the chains. Where residue
    numbers of a chain leave a gap (unresolved residues), a <mask> stands for each that is missing, at most `linker`.
    Absent residues (res_mask 0) are left out whatever they hold.

    Our token 20 means two things. On a residue that is designed (diffuse_mask 1) it is the flow's mask token and
    becomes <mask>. On one that is given it is a residue of unknown type and becomes X. A flow without mask token has it
    on designed residues only where the data do not know the type, which is what <mask> says.
    """
    tokens, chain, number = (value.long().cpu() for value in (batch.aatypes_t, batch.chain_idx, batch.res_idx))
    present, designed = batch.res_mask.cpu() > 0, batch.diffuse_mask.cpu() > 0
    ids = torch.where((tokens == MASK_TOKEN) & designed, alphabet.mask, alphabet.residues[tokens])
    lines = [_line(*(value[here] for value in row), alphabet, linker)
             for *row, here in zip(ids, chain, number, present, strict=True)]  # fmt: skip
    out = torch.full((len(lines), max(len(line) for line, _ in lines)), alphabet.padding)
    place = torch.zeros_like(tokens)
    for row, (line, where) in enumerate(lines):
        out[row, : len(line)] = line
        place[row, present[row]] = where
    return Tokens(out, place)


def _line(ids: Tensor, chain: Tensor, number: Tensor, alphabet: Alphabet, linker: int) -> tuple[Tensor, Tensor]:
    """One protein's tokens [T] and where its residues stand in them [n]; ids, chain, number: [n], of those present."""
    same = chain[1:] == chain[:-1]
    between = torch.where(same, (number.diff() - 1).clamp(0, linker), linker)
    place = 1 + torch.arange(len(ids)) + torch.cat([between.new_zeros(min(1, len(ids))), between.cumsum(0)])
    line = torch.full((len(ids) + int(between.sum()) + 2,), alphabet.start)
    line[-1] = alphabet.end
    filled = torch.ones(len(line), dtype=torch.bool)
    filled[0] = filled[-1] = filled[place] = False
    line[filled] = torch.where(same, alphabet.mask, alphabet.glycine).repeat_interleave(between)
    line[place] = ids
    return line, place
