"""Which N-H of a backbone is bonded to which C=O, by electrostatic energy (Kabsch & Sander 1983)."""

import numpy as np
from scipy.spatial import KDTree

from app.chem.backbone import CARBONYL_BOND

BOND = -0.5
"""kcal/mol below which there is a hydrogen bond."""

COUPLING = 0.42 * 0.20 * 332
"""kcal/mol angstrom: the partial charges, in elementary charges, on C=O and on N-H, and the unit's conversion."""

N_H = 1.0
"""Length of N-H, angstrom."""

FARTHEST = 9.0
"""Angstrom between the CA atoms of residues that can be bonded so."""

_NEAREST = 0.5  # angstrom; atoms nearer than this lie in one another, and their energy would be any


def hydrogen_bonds(n: np.ndarray, ca: np.ndarray, c: np.ndarray, linked: np.ndarray, proline: np.ndarray) -> np.ndarray:
    """[N, N] bool: the N-H of the first residue is bonded to the C=O of the second.

    n, ca, c: [N, 3] angstrom; linked: [N] bool, the residue before is bonded to this one; proline: [N] bool, those have
    no N-H, nor has the first residue of a chain. Where the next residue is not bonded there is no C=O either: oxygens
    are placed in the planes of peptide bonds, as hydrogens are, so that nothing but N, CA and C is read.
    """
    bonded = np.zeros((len(n), len(n)), dtype=bool)
    follows = np.append(linked[1:], False)
    next_n = np.roll(n, -1, axis=0)
    o = c + CARBONYL_BOND * _unit(_unit(c - ca) + _unit(c - next_n))
    h = n + N_H * np.roll(_unit(c - o), 1, axis=0)
    pairs = KDTree(ca).query_pairs(FARTHEST, output_type="ndarray")
    donor, acceptor = np.concatenate([pairs, pairs[:, ::-1]]).T
    possible = linked[donor] & ~proline[donor] & follows[acceptor] & (acceptor != donor - 1)
    donor, acceptor = donor[possible], acceptor[possible]
    energy = COUPLING * (
        _inverse(o[acceptor], n[donor])
        + _inverse(c[acceptor], h[donor])
        - _inverse(o[acceptor], h[donor])
        - _inverse(c[acceptor], n[donor])
    )
    bonded[donor, acceptor] = energy < BOND
    return bonded


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-6)


def _inverse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 / distance."""
    return 1 / np.maximum(np.linalg.norm(a - b, axis=-1), _NEAREST)
