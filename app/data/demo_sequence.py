"""Sequences of the synthetic demo chains: every residue drawn by what surrounds it.

A residue's environment is its place in helix, strand or loop, its backbone conformation and how buried it is; each
environment has its own distribution over the twenty residue types. The tables follow well-known preferences (Chou &
Fasman 1978; Richardson & Richardson 1988 on helix ends; Hutchinson & Thornton 1994 on turns) but are written by hand
and much sharper than nature's, so that a small model can learn them. Nothing here was fitted to real proteins.
"""

from __future__ import annotations

import numpy as np

from app.chem import atoms as slot
from app.chem.residues import AATYPES

CORE, BOUNDARY = 4.0, 1.8
"""Side-chain neighbours from which a residue counts as core, or as boundary; below that it is surface."""

PROPENSITIES = {
    "first residue": "M 90 S 4 G 3 A 3",
    "helix, first residue": "P 44 E 20 S 12 A 10 T 6 D 4 W 4",
    "helix, core": "L 54 I 12 F 9 M 9 A 7 V 4 C 3 W 2",
    "helix, boundary": "A 50 L 10 K 7 R 7 I 5 Q 6 M 5 V 3 Y 2 H 3 E 2",
    "helix, surface, first half": "E 54 D 10 K 9 Q 8 A 8 S 5 R 4 T 2",
    "helix, surface, second half": "K 46 R 18 E 9 Q 10 A 8 N 5 H 4",
    "helix, last residue": "N 40 K 16 H 10 R 10 L 8 S 8 G 8",
    "strand, core": "V 52 I 26 F 8 L 5 A 4 C 3 Y 1 W 1",
    "strand, boundary": "I 14 V 14 Y 40 F 10 W 6 T 8 L 4 H 2 C 2",
    "strand, surface": "T 43 E 12 R 10 Q 9 K 8 S 6 V 6 Y 4 H 2",
    "before a helix": "D 48 S 28 T 14 N 8 G 2",
    "loop, left-handed": "G 76 N 14 D 6 K 4",
    "loop, polyproline": "P 52 K 9 E 7 S 8 T 6 A 6 V 6 L 6",
    "loop, extended": "R 42 T 14 S 12 K 10 Q 8 E 6 H 4 Y 4",
    "loop, helical": "S 44 D 14 K 12 N 10 E 10 A 6 Q 4",
    "loop, core": "F 44 L 20 W 8 I 8 M 6 Y 6 V 4 H 4",
    "turn I', first residue": "N 56 D 24 G 14 H 6",
    "turn I', second residue": "G 88 N 8 K 4",
    "turn II', first residue": "G 90 N 6 D 4",
    "turn II', second residue": "S 44 T 18 D 18 N 14 K 6",
}
"""Percentages of residue types in each environment."""

_LOOPS = {
    "L": "loop, left-handed",
    "P": "loop, polyproline",
    "B": "loop, extended",
    "A": "loop, helical",
    "1": "turn I', first residue",
    "2": "turn I', second residue",
    "3": "turn II', first residue",
    "4": "turn II', second residue",
}
_NEVER_BURIED = "L1234"


def draw_sequence(rng: np.random.Generator, letters: str, chain: np.ndarray) -> np.ndarray:
    """aatype [N] of a chain with conformations `letters` (keys of `demo_fold.BASINS`) and atoms [N, 5, 3], angstrom."""
    cumulative = probabilities(letters, chain).cumsum(axis=1)
    return (rng.random((len(letters), 1)) > cumulative[:, :-1]).sum(axis=1)


def probabilities(letters: str, chain: np.ndarray) -> np.ndarray:
    """The distributions [N, 20] that `draw_sequence` draws from. Their largest entries bound what can be recovered."""
    return np.stack([_TABLES[environment] for environment in environments(letters, chain)])


def environments(letters: str, chain: np.ndarray) -> list[str]:
    """The environment of every residue, keys of `PROPENSITIES`."""
    buried = neighbours(chain)
    begins = [k for k in range(len(letters)) if letters[k] == "H" and letters[k - 1 : k] != "H"]
    ends = [k for k in range(len(letters)) if letters[k] == "H" and letters[k + 1 : k + 2] != "H"]
    middle = {k: (begin + end) / 2 for begin, end in zip(begins, ends, strict=True) for k in range(begin, end + 1)}
    found = []
    for k, letter in enumerate(letters):
        level = "core" if buried[k] >= CORE else "boundary" if buried[k] >= BOUNDARY else "surface"
        if k == 0:
            found.append("first residue")
        elif k in begins and level != "core":
            found.append("helix, first residue")
        elif k in ends and level != "core":
            found.append("helix, last residue")
        elif letter == "H" and level == "surface":
            found.append(f"helix, surface, {'first' if k < middle[k] else 'second'} half")
        elif letter in "HE":
            found.append(f"{'helix' if letter == 'H' else 'strand'}, {level}")
        elif letter not in _NEVER_BURIED and k + 1 in begins:
            found.append("before a helix")
        elif letter not in _NEVER_BURIED and level == "core":
            found.append("loop, core")
        else:
            found.append(_LOOPS[letter])
    return found


def neighbours(chain: np.ndarray) -> np.ndarray:
    """[N] CB atoms in the cone that a residue's CA-CB bond points into, counted softly up to some 9 angstrom: the
    measure of burial by which Rosetta tells core, boundary and surface apart."""
    ca, cb = chain[:, slot.CA], chain[:, slot.CB]
    between = cb[None] - cb[:, None]
    distance = np.sqrt((between**2).sum(-1)) + np.eye(len(cb))
    bond = (cb - ca) / np.linalg.norm(cb - ca, axis=-1, keepdims=True)
    cosine = (between * bond[:, None]).sum(-1) / distance
    weight = (np.maximum(cosine + 0.5, 0.0) / 1.5) ** 2 / (1.0 + np.exp(distance - 9.0))
    return (weight * (1.0 - np.eye(len(cb)))).sum(1)


def _table(text: str) -> np.ndarray:
    fields = text.split()
    table = np.zeros(len(AATYPES))
    table[[AATYPES.index(letter) for letter in fields[::2]]] = [float(percent) for percent in fields[1::2]]
    return table / table.sum()


_TABLES = {environment: _table(text) for environment, text in PROPENSITIES.items()}
