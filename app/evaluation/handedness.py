"""L or D: the hand of residues, and that of helices, which shows a structure that is its own mirror image."""

import numpy as np
import torch
from torch import Tensor

from app.chem import atoms
from app.geometry.internal import dihedral

HELICAL_RISE = (4.5, 6.0)
"""Angstrom from CA to the third CA on, in an alpha helix of either hand (ideal: 5.0)."""

HELICAL_TWIST = (30.0, 70.0)
"""Degrees, of either sign: the dihedral angle of four CA in an alpha helix (ideal: 50, positive in right-handed)."""


def d_residues(atom37: Tensor, atom_mask: Tensor) -> Tensor:
    """[N] bool, which residues are of the D form: CB lies on the other side of N, CA and C. False without CB.

    atom37: [N, 37, 3] angstrom; atom_mask: [N, 37] bool.
    """
    n, ca, c, cb = (atom37[:, slot] for slot in (atoms.N, atoms.CA, atoms.C, atoms.CB))
    volume = (torch.linalg.cross(n - ca, c - ca) * (cb - ca)).sum(-1)
    return (volume < 0) & atom_mask[:, atoms.CB].bool()


def helical_turns(ca: np.ndarray, follows: np.ndarray) -> tuple[int, int]:
    """How many stretches of four CA are turns of right-handed and of left-handed alpha helices.

    ca: [N, 3] angstrom; follows: [N] bool, the next residue is bonded to this one.
    """
    if len(ca) < 4:
        return 0, 0
    whole = follows[:-3] & follows[1:-2] & follows[2:-1]
    rise = np.linalg.norm(ca[3:] - ca[:-3], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        twist = np.degrees(dihedral(ca[:-3], ca[1:-2], ca[2:-1], ca[3:]))
    helical = whole & (rise > HELICAL_RISE[0]) & (rise < HELICAL_RISE[1])
    helical &= (np.abs(twist) > HELICAL_TWIST[0]) & (np.abs(twist) < HELICAL_TWIST[1])
    return int((helical & (twist > 0)).sum()), int((helical & (twist < 0)).sum())
