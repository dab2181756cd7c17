"""Residues to the language model's tokens and back: one sequence a protein, its chains joined by linkers."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from app.chem.residues import AATYPES_WITH_X, MASK_TOKEN, NUM_TOKENS
from app.errors import UserError
from app.ops.esm_attention import Sequences
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
class TokenLayout:
    """Where residues and other tokens stand in the language model's input: all but the types of the residues.

    It depends on which residues there are, their chains and numbers, and so not on the step of a design.
    """

    alphabet: Alphabet
    fixed: Tensor  # [B, T] int64, the tokens that are no residues
    residue: Tensor  # [B, T] int64, which residue a token stands for; -1 for none
    place: Tensor  # [B, N] int64, where among its T tokens a residue stands; 0 for absent ones
    packed: Tensor  # [all tokens but padding] int64, where these stand among the B * T
    sequences: Sequences  # how many of them each protein has

    def to(self, device: torch.device) -> "TokenLayout":
        moved = {name: getattr(self, name).to(device) for name in ("fixed", "residue", "place", "packed")}
        alphabet = dataclasses.replace(self.alphabet, residues=self.alphabet.residues.to(device))
        sequences = Sequences(self.sequences.starts.to(device), self.sequences.lengths)
        return TokenLayout(alphabet, **moved, sequences=sequences)

    def same_as(self, other: "TokenLayout") -> bool:
        """Whether residues stand at the same places."""
        return torch.equal(self.place, other.place)

    def read(self, batch: NoisyBatch) -> Tensor:
        """The tokens [B, T] of a batch, by operations on its device alone.

        Our token 20 means two things. On a residue that is designed (diffuse_mask 1) it is the flow's mask token and
        becomes <mask>. On one that is given it is a residue of unknown type and becomes X. A flow without mask token
        has it on designed residues only where the data do not know the type, which is what <mask> says.
        """
        types, designed = batch.aatypes_t.long(), batch.diffuse_mask > 0
        types = torch.where((types == MASK_TOKEN) & designed, self.alphabet.mask, self.alphabet.residues[types])
        return torch.where(self.residue < 0, self.fixed, types.gather(1, self.residue.clamp(min=0)))


def lay_out(batch: NoisyBatch, alphabet: Alphabet, linker: int) -> TokenLayout:
    """On the CPU: <cls>, the residues that are there, <eos>, padding.

    Between two chains stand `linker` glycines, as ESMFold has it (Lin et al. 2023). The language model knows positions
    by rotary embeddings only, so that the linker's length is also the distance between the chains. Where residue
    numbers of a chain leave a gap (unresolved residues), a <mask> stands for each that is missing, at most `linker`.
    Absent residues (res_mask 0) are left out whatever they hold.
    """
    chain, number = (value.long().cpu() for value in (batch.chain_idx, batch.res_idx))
    present = batch.res_mask.cpu() > 0
    lines = [_line(chain[row, here], number[row, here], alphabet, linker) for row, here in enumerate(present)]
    lengths = tuple(len(line) for line, _ in lines)
    fixed = torch.full((len(lines), max(lengths)), alphabet.padding)
    residue, place = torch.full_like(fixed, -1), torch.zeros_like(chain)
    for row, (line, where) in enumerate(lines):
        fixed[row, : len(line)] = line
        residue[row, where] = present[row].nonzero()[:, 0]
        place[row, present[row]] = where
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return TokenLayout(alphabet, fixed, residue, place, inside.flatten().nonzero()[:, 0], Sequences(starts, lengths))


def _line(chain: Tensor, number: Tensor, alphabet: Alphabet, linker: int) -> tuple[Tensor, Tensor]:
    """One protein's tokens [T], glycine or anything where a residue stands, and where its residues stand [n].

    chain, number: [n], of those present.
    """
    same = chain[1:] == chain[:-1]
    between = torch.where(same, (number.diff() - 1).clamp(0, linker), linker)
    place = 1 + torch.arange(len(chain)) + torch.cat([between.new_zeros(min(1, len(chain))), between.cumsum(0)])
    line = torch.full((len(chain) + int(between.sum()) + 2,), alphabet.start)
    line[-1] = alphabet.end
    filled = torch.ones(len(line), dtype=torch.bool)
    filled[0] = filled[-1] = filled[place] = False
    line[filled] = torch.where(same, alphabet.mask, alphabet.glycine).repeat_interleave(between)
    return line, place


def outlined_layout(size: int, length: int) -> TokenLayout:
    """A layout of single chains without gaps in shape alone: no token stands where it belongs."""
    tokens = length + 2

    def none(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.int64)

    sequences = Sequences(torch.zeros(size + 1, dtype=torch.int32), (tokens,) * size)
    alphabet = Alphabet(0, 0, 0, 0, 0, residues=none(NUM_TOKENS))
    return TokenLayout(
        alphabet, none(size, tokens), none(size, tokens), none(size, length), none(size * tokens), sequences
    )
