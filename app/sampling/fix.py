"""Which residues of a structure stay as they are: `fix=[A10-35,B101-120]`, against what the file has."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from app.errors import UserError
from app.sampling.layout import Layout, prefix
from app.structure.losses import Loss
from app.structure.numbering import split_residue_id, split_residue_ids
from app.types import Protein

_ID = r"-?\d{1,9}[A-Za-z]?"
_RANGE = re.compile(rf"({_ID})(?:-({_ID}))?")
Key = tuple[int, str]  # number and insertion code
_LISTED = 6  # residues, or runs of them, that a line names


def fixed_residues(
    fix: Sequence[str], protein: Protein, path, losses: Sequence[Loss] = ()
) -> tuple[np.ndarray, list[str]]:
    """Residues of the protein that `fix` names, [N] bool, and what is to be noted of it.

    fix: chains ("A"), residues ("A12", "H52A" with its insertion code) and ranges ("A10-35", ends included), by the
    file's own chain names and numbers. Where a chain's name could be read otherwise, a colon parts it: "A1:10-35". A
    range is of residues in the file's order and may hold some that the file lacks, which is noted where it is an end.
    path: names the file in errors. losses: residues that the protein has not, or not as the file has them.
    Raises UserError for what names nothing, or more than one thing, in the file, for a residue that cannot stay because
    it was not read, and where nothing is left to design.
    """
    chains = _Chains(protein, losses)
    fixed, notes = np.zeros(len(protein), dtype=bool), []
    for text in fix:
        found = list(chains.readings(text))
        if not found:
            raise UserError(f"fix={text}: names nothing in {path}, which has {chains.in_words()}")
        if len(found) > 1:
            raise UserError(f"fix={text}: may name {' or '.join(one.text for one in found)} of {path}: give one so")
        if lost := found[0].lost:
            rest = ",".join(chains.spans(found[0].places))
            cure = f", as in fix=[{rest}]" if rest else ""
            raise UserError(
                f"fix={text}: {_some(lost)} of {path} cannot stay, having no N, CA and C that can be used: "
                f"complete the file, or fix the others alone{cure}"
            )
        fixed[found[0].places] = True
        if found[0].missing:
            has = _some(chains.spans(found[0].places))
            notes.append(f"fix={text}: the file has no {' and no '.join(found[0].missing)}; fixed are {has}")
    if fixed.all():
        raise UserError(f"fix: names every residue of {path}, so that nothing is left to design: fix fewer")
    if lost := [f"{prefix(loss.chain)}{loss.residue}" for loss in losses if loss.read_as is None]:
        notes.append(f"left out, having no N, CA and C that can be used: {_some(lost)}")
    if altered := [_altered(loss) for loss in losses if loss.read_as is not None and fixed[loss.place]]:
        notes.append(f"fix: not all as the file has it: {_some(altered)}")
    return fixed, notes


class _Reading(NamedTuple):
    """What an entry of `fix` may mean."""

    text: str  # with a colon
    places: np.ndarray  # in the protein, of the residues that it names
    lost: list[str]  # residues that it names and that were not read
    missing: list[str]  # ends of a range that the file lacks


class _Residue(NamedTuple):
    """One of a chain in the file."""

    key: Key
    place: int | None  # in the protein; None: not read
    name: str


class _Chains:
    """The chains of a file with their residues, those that were not read among them, in the file's order."""

    def __init__(self, protein: Protein, losses: Sequence[Loss]):
        ids = protein.res_idx.astype(str) if protein.residue_ids is None else protein.residue_ids
        numbers, codes = split_residue_ids(ids.tolist())
        chain_idx, res_idx = (torch.from_numpy(values) for values in (protein.chain_idx, protein.res_idx))
        self.layout = Layout(chain_idx, res_idx, numbers, codes, protein.chain_ids)
        self.chains: dict[str, list[_Residue]] = {name: [] for name in protein.chain_ids}
        left_out = [loss for loss in losses if loss.read_as is None and re.fullmatch(_ID, loss.residue)]
        for place in range(len(protein) + 1):
            while left_out and left_out[0].place == place:
                loss = left_out.pop(0)
                key, name = split_residue_id(loss.residue), f"{prefix(loss.chain)}{loss.residue}"
                self.chains.setdefault(loss.chain, []).append(_Residue(key, None, name))
            if place < len(protein):
                key, chain = (int(numbers[place]), str(codes[place])), protein.chain_ids[protein.chain_idx[place] - 1]
                self.chains[chain].append(_Residue(key, place, self.layout.name(place)))

    def readings(self, text: str) -> Iterator[_Reading]:
        """Every way in which the text names residues. Raises UserError where each is a range that ends too early."""
        found = backwards = False
        for name, own in self.chains.items():
            rest = text.removeprefix(name)
            if text in (name, f"{name}:"):
                found = True
                yield _reading(f"{name}:", own, [])
            elif rest != text and (ends := _RANGE.fullmatch(rest.removeprefix(":"))):
                ids = [end for end in ends.groups() if end]
                named = _from_to(own, split_residue_id(ids[0]), split_residue_id(ids[-1]))
                backwards |= named is None
                if named:
                    found, there = True, {residue.key for residue in own}
                    yield _reading(
                        f"{name}:{ends[0]}", named, [end for end in ids if split_residue_id(end) not in there]
                    )
        if backwards and not found:
            raise UserError(f"fix={text}: the range ends before it begins: give its ends in the file's order")

    def spans(self, places: np.ndarray) -> list[str]:
        """Runs of residues of the protein, as `fix` reads them."""
        mask = torch.zeros(len(self.layout.chain_idx), dtype=torch.bool)
        mask[torch.from_numpy(places)] = True
        return [f"{prefix(chain)}{run}" for chain, runs in self.layout.spans(mask).items() for run in runs]

    def in_words(self) -> str:
        every = self.layout.spans(torch.ones_like(self.layout.chain_idx, dtype=torch.bool))
        return ", ".join(_some([f"{prefix(chain)}{run}" for run in runs]) for chain, runs in every.items())


def _reading(text: str, named: Sequence[_Residue], missing: list[str]) -> _Reading:
    places = np.array([residue.place for residue in named if residue.place is not None], dtype=np.int64)
    return _Reading(text, places, [residue.name for residue in named if residue.place is None], missing)


def _from_to(own: Sequence[_Residue], first: Key, last: Key) -> Sequence[_Residue] | None:
    """Those of a chain from one residue to another; where the file lacks an end, from where it would be. None where the
    last comes before the first."""
    keys = [residue.key for residue in own]
    start = keys.index(first) if first in keys else sum(key < first for key in keys)
    stop = keys.index(last) + 1 if last in keys else sum(key < last for key in keys)
    if stop <= start and first != last and (last < first or {first, last} <= set(keys)):
        return None
    return own[start:stop]


def _altered(loss: Loss) -> str:
    kind = loss.name if loss.name == loss.read_as else f"{loss.name} as {loss.read_as}"
    atoms = f", {loss.atoms} heavy atom{'s' * (loss.atoms > 1)} left out" if loss.atoms else ""
    return f"{prefix(loss.chain)}{loss.residue} ({kind}{atoms})"


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:_LISTED], *([f"{len(names) - _LISTED} more"] if len(names) > _LISTED else [])])
