"""Which residues of a structure stay as they are: `fix=[A10-35,B1-20]`, against what the file has."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from app.errors import UserError
from app.sampling.layout import Layout
from app.structure.numbering import split_residue_id, split_residue_ids
from app.types import Protein

_ID = r"-?\d{1,9}[A-Za-z]?"
_RANGE = re.compile(rf"({_ID})(?:-({_ID}))?")
Key = tuple[int, str]  # number and insertion code
_LISTED = 6  # runs of residues of a chain that an error names


def fixed_residues(fix: Sequence[str], protein: Protein, path) -> tuple[np.ndarray, list[str]]:
    """Residues of the protein that `fix` names, [N] bool, and what is to be noted of it.

    fix: chains ("A"), residues ("A12", "H52A" with its insertion code) and ranges ("A10-35", ends included), by the
    file's own chain names and numbers. Where a chain's name could be read otherwise, a colon parts it: "A1:10-35". A
    range is of residues in the file's order and may hold some that the file lacks, which is noted where it is an end.
    path: names the file in errors.
    Raises UserError for what names nothing, or more than one thing, in the file, and where nothing is left to design.
    """
    chains = _Chains(protein)
    fixed, notes = np.zeros(len(protein), dtype=bool), []
    for text in fix:
        found = list(chains.readings(text))
        if not found:
            raise UserError(f"fix={text}: names nothing in {path}, which has {chains.in_words()}")
        if len(found) > 1:
            raise UserError(f"fix={text}: may name {' or '.join(one.text for one in found)} of {path}: give one so")
        fixed[found[0].places] = True
        if found[0].missing:
            has = ", ".join(chains.spans(found[0].places))
            notes.append(f"fix={text}: the file has no {' and no '.join(found[0].missing)}; fixed are {has}")
    if fixed.all():
        raise UserError(f"fix: names every residue of {path}, so that nothing is left to design: fix fewer")
    return fixed, notes


class _Reading(NamedTuple):
    """What an entry of `fix` may mean."""

    text: str  # with a colon
    places: np.ndarray  # of the residues that it names, in the file
    missing: list[str]  # ends of a range that the file lacks


class _Chains:
    """The chains of a file with their residues' names, in the file's order."""

    def __init__(self, protein: Protein):
        ids = protein.res_idx.astype(str) if protein.residue_ids is None else protein.residue_ids
        numbers, codes = split_residue_ids(ids.tolist())
        chain_idx, res_idx = (torch.from_numpy(values) for values in (protein.chain_idx, protein.res_idx))
        self.layout = Layout(chain_idx, res_idx, numbers, codes, protein.chain_ids)
        self.keys = list(zip(numbers.tolist(), codes.tolist(), strict=True))

    def readings(self, text: str) -> Iterator[_Reading]:
        """Every way in which the text names residues. Raises UserError for a range that ends before it begins."""
        for index, name in enumerate(self.layout.chain_ids, start=1):
            own = np.flatnonzero(self.layout.chain_idx.numpy() == index)
            rest = text.removeprefix(name)
            if text in (name, f"{name}:"):
                yield _Reading(f"{name}:", own, [])
            elif rest != text and (ends := _RANGE.fullmatch(rest.removeprefix(":"))):
                ids = [end for end in ends.groups() if end]
                if len(places := self._from_to(text, own, split_residue_id(ids[0]), split_residue_id(ids[-1]))):
                    there = {self.keys[place] for place in own}
                    yield _Reading(
                        f"{name}:{ends[0]}", places, [end for end in ids if split_residue_id(end) not in there]
                    )

    def spans(self, own: np.ndarray) -> Iterator[str]:
        mask = torch.zeros(len(self.keys), dtype=torch.bool)
        mask[torch.from_numpy(own)] = True
        for chain, runs in self.layout.spans(mask).items():
            more = [f"{len(runs) - _LISTED} more"] if len(runs) > _LISTED else []
            yield ", ".join([*(f"{chain}{run}" for run in runs[:_LISTED]), *more])

    def in_words(self) -> str:
        return ", ".join(self.spans(np.arange(len(self.keys))))

    def _from_to(self, text: str, own: np.ndarray, first: Key, last: Key) -> np.ndarray:
        """Places of a chain from one residue to another; where the file lacks an end, from where it would be."""
        keys = [self.keys[place] for place in own]
        start = keys.index(first) if first in keys else sum(key < first for key in keys)
        stop = keys.index(last) + 1 if last in keys else sum(key < last for key in keys)
        if stop <= start and first != last and (last < first or {first, last} <= set(keys)):
            raise UserError(f"fix={text}: the range ends before it begins: give its ends in the file's order")
        return own[start:stop]
