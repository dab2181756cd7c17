"""Secondary structure by patterns of hydrogen bonds: DSSP (Kabsch & Sander 1983), from N, CA and C alone."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from torch import Tensor

from app.chem.residues import AATYPES
from app.evaluation.chain import PEPTIDE_BOND
from app.evaluation.hydrogen_bonds import hydrogen_bonds

HELIX, STRAND, LOOP = "H", "E", "L"

THREE_STATES = {"H": HELIX, "G": HELIX, "I": HELIX, "E": STRAND, "B": STRAND, "-": LOOP}
"""DSSP's states in three: helices of all kinds; strands and single bridges; everything else."""

FARTHEST = 500.0
"""Angstrom from the middle of the chain; residues beyond, as of designs that fell apart, are taken as absent."""

SHORTEST = {HELIX: 4, STRAND: 2}
"""Residues of what counts as an element: a turn of a helix, and more than a single bridge."""

_PROLINE = AATYPES.index("P")
_HELIX_OF_TURN = {4: "H", 3: "G", 5: "I"}
_BULGES = [(a, b) for a in range(1, 6) for b in range(1, 6) if min(a, b) <= 2]
"""Residues by which one ladder may follow another on the two strands and still be the same."""

Bridge = tuple[int, int]


def secondary_structure(backbone: Tensor, chain_idx: Tensor, aatypes: Tensor | None = None) -> str:
    """A letter a residue: H (helix), E (strand), L (neither); see `THREE_STATES`.

    backbone: [N, 3, 3], N, CA and C in angstrom; chain_idx: [N]; aatypes: [N], for prolines, which have no N-H. Where
    the chain changes, and where C and the next N are further apart than a bond, the chain is broken.
    """
    return "".join(THREE_STATES[state] for state in dssp(backbone, chain_idx, aatypes))


def dssp(backbone: Tensor, chain_idx: Tensor, aatypes: Tensor | None = None) -> str:
    """DSSP's letters: H, G, I (alpha, 3-10, pi helix), E (strand), B (single bridge), - (none of these).

    Arguments as of `secondary_structure`. Hydrogen bonds are all those below the threshold; DSSP itself keeps the best
    two of a residue.
    """
    atoms = backbone.detach().float().cpu().numpy()
    finite = np.isfinite(atoms).all((1, 2))
    middle = np.median(atoms[finite, 1], axis=0) if finite.any() else np.zeros(3)
    near = finite & (np.linalg.norm(np.nan_to_num(atoms) - middle, axis=-1) < FARTHEST).all(-1)
    states = np.full(len(atoms), "-")
    if near.any():
        chains = chain_idx.cpu().numpy()[near]
        proline = np.zeros(len(chains), bool) if aatypes is None else aatypes.cpu().numpy()[near] == _PROLINE
        states[near] = _states(*atoms[near].swapaxes(0, 1), chains, proline)
    return "".join(states)


def contents(states: Sequence[str]) -> dict[str, float]:
    """Shares of the residues in helices and in strands; 0 where there is no residue."""
    count = max(1, len(states))
    return {"helix": states.count(HELIX) / count, "strand": states.count(STRAND) / count}


def elements(states: str) -> str:
    """The helices and strands in their order, a letter each: "EHE". Those under `SHORTEST` are left out."""
    runs = ((state, len(list(run))) for state, run in groupby(states))
    return "".join(state for state, length in runs if state != LOOP and length >= SHORTEST[state])


def _states(n, ca, c, chains, proline) -> np.ndarray:
    linked = np.append(False, (np.linalg.norm(c[:-1] - n[1:], axis=-1) < PEPTIDE_BOND) & (chains[1:] == chains[:-1]))
    bonds = hydrogen_bonds(n, ca, c, linked, proline)
    stretch = np.cumsum(~linked)  # of residues that are bonded one after another
    states = np.full(len(n), "-")
    strands = []
    for step in (1, -1):
        ladders = list(_ladders(_bridges(bonds, linked, step), step))
        for ladder in ladders:
            states[_residues(ladder)] = "B"
        strands += [_residues(ladder) for ladder in ladders if len(ladder) > 1]
        strands += _with_bulges(ladders, step, stretch)
    for residues in strands:
        states[residues] = "E"
    for turn, letter in _HELIX_OF_TURN.items():
        for first in _helices(bonds, stretch, turn):
            own = states[first : first + turn]
            if turn == 4 or np.isin(own, ("-", letter)).all():
                own[:] = letter
    return states


def _helices(bonds: np.ndarray, stretch: np.ndarray, turn: int) -> np.ndarray:
    """First residues of minimal helices: two turns one after another. A turn: C=O bonded to the N-H `turn` further."""
    if len(bonds) <= turn:
        return np.empty(0, dtype=int)
    turns = np.diagonal(bonds, -turn) & (stretch[turn:] == stretch[:-turn])
    return np.flatnonzero(turns[1:] & turns[:-1]) + 1


def _bridges(bonds: np.ndarray, linked: np.ndarray, step: int) -> set[Bridge]:
    """Pairs of residues i < j - 2 bridged between parallel (step 1) or antiparallel (step -1) strands."""
    count = len(bonds)
    if count < 3:
        return set()
    inner = np.zeros(count, dtype=bool)  # with both neighbours in the chain
    inner[1:-1] = linked[1:-1] & linked[2:]
    to = bonds.T  # [i, j]: the C=O of i is bonded to the N-H of j
    here, before, after = slice(1, -1), slice(None, -2), slice(2, None)
    found = np.zeros_like(bonds)
    if step == 1:
        one = to[before, here] & to[here, after].T
        found[here, here] = one | one.T
    else:
        found[here, here] = (to[here, here] & to[here, here].T) | (to[before, after] & to[before, after].T)
    found &= inner[:, None] & inner
    return {(int(i), int(j)) for i, j in np.argwhere(np.triu(found, 3))}


def _ladders(bridges: set[Bridge], step: int) -> Iterator[list[Bridge]]:
    """Bridges one after another."""
    for i, j in sorted(bridges):
        if (i - 1, j - step) not in bridges:
            ladder = [(i, j)]
            while (following := (ladder[-1][0] + 1, ladder[-1][1] + step)) in bridges:
                ladder.append(following)
            yield ladder


def _with_bulges(ladders: list[list[Bridge]], step: int, stretch: np.ndarray) -> Iterator[np.ndarray]:
    """Residues from the first to the last of two ladders that are one but for a bulge, on either side."""
    by_first = {ladder[0]: ladder for ladder in ladders}
    for one in ladders:
        i, j = one[-1]
        for a, b in _BULGES:
            if (other := by_first.get((i + a, j + step * b))) is None:
                continue
            sides = list(zip(one[0], other[-1], strict=True))
            if all(stretch[begin] == stretch[end] for begin, end in sides):
                yield from (np.arange(min(side), max(side) + 1) for side in sides)


def _residues(ladder: list[Bridge]) -> np.ndarray:
    return np.array(ladder).ravel()
