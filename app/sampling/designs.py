"""The designs of a run: their ids, their seeds, and which of them are made together."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from app.sampling.given import Given
from app.sampling.inputs import Task
from app.sampling.layout import Layout
from app.sampling.request import Request, chain_lengths


@dataclass(frozen=True)
class Design:
    """One design that was asked for. Its id is unique in the run and safe as a file name."""

    id: str
    length: int  # residues
    seed: int
    given: Given | None = None  # what tasks other than from noise start from
    chain_lengths: tuple[int, ...] = ()  # of a design from noise

    @cached_property
    def layout(self) -> Layout:
        """Its chains and residue numbers."""
        return self.given.layout if self.given else Layout.counted(self.chain_lengths or (self.length,))

    @property
    def fixed(self) -> Tensor:
        """[N] bool, residues that stay as the input has them: of partial design."""
        kept = self.given.kept if self.given else None
        return torch.zeros(self.length, dtype=torch.bool) if kept is None else kept.fixed

    def designs_sequence(self, task: Task) -> Tensor:
        """[N] bool, residues whose type is designed. task: the sampler's (`Request.sampled`)."""
        return ~self.fixed & (not task.gives_tokens)

    def designs_structure(self, task: Task) -> Tensor:
        """[N] bool, residues whose place is designed."""
        return ~self.fixed & (not task.gives_frames)


def designs_of(request: Request, given: Sequence[Given]) -> list[Design]:
    """All designs of a run in the order asked for. given: the inputs of a folding task, else none."""
    made: list[Design] = []
    if request.lengths:
        count = dict.fromkeys(request.lengths, 0)
        for length in request.lengths:  # one given twice gets twice as many
            chains = chain_lengths(length)
            for _ in range(request.samples_per_length or 1):
                name = f"len{'-'.join(map(str, chains))}_{count[length]}"
                made.append(Design(name, sum(chains), seed_of(request.seed, name), chain_lengths=chains))
                count[length] += 1
    for one in given:
        for index in range(request.samples or 1):
            name = f"{one.name}_{index}"
            made.append(Design(name, len(one), seed_of(request.seed, name), one))
    return made


def seed_of(seed: int, design_id: str) -> int:
    """A design's seed: that of the run mixed with the id, so that it depends on no other design. Under 2^48."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{design_id}".encode(errors="surrogateescape")).digest()[:6], "big")


def share(designs: Sequence[Design], rank: int, ranks: int) -> list[Design]:
    """One rank's part of the designs: each is in one rank's, and all have as many of a length, give or take one."""
    return sorted(designs, key=lambda design: design.length)[rank::ranks]


def batches(designs: Sequence[Design], at_once: Callable[[int], int]) -> Iterator[list[Design]]:
    """Designs of one length, at most `at_once(length)` of them; short ones first."""
    by_length: dict[int, list[Design]] = {}
    for design in designs:
        by_length.setdefault(design.length, []).append(design)
    for length, members in sorted(by_length.items()):
        size = max(1, at_once(length))
        yield from (members[first : first + size] for first in range(0, len(members), size))
