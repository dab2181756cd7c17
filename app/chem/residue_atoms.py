"""Which heavy atoms each residue type has."""

import numpy as np

from app.chem.atoms import ATOM37_INDEX, NUM_ATOM37
from app.chem.residues import AATYPES_WITH_X, NUM_TOKENS

_BACKBONE = ("N", "CA", "C", "O", "OXT")

_SIDE_CHAINS = {
    "A": "CB", "R": "CB CG CD NE CZ NH1 NH2", "N": "CB CG OD1 ND2", "D": "CB CG OD1 OD2", "C": "CB SG",
    "Q": "CB CG CD OE1 NE2", "E": "CB CG CD OE1 OE2", "G": "", "H": "CB CG ND1 CD2 CE1 NE2", "I": "CB CG1 CG2 CD1",
    "L": "CB CG CD1 CD2", "K": "CB CG CD CE NZ", "M": "CB CG SD CE", "F": "CB CG CD1 CD2 CE1 CE2 CZ", "P": "CB CG CD",
    "S": "CB OG", "T": "CB OG1 CG2", "W": "CB CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2", "Y": "CB CG CD1 CD2 CE1 CE2 CZ OH",
    "V": "CB CG1 CG2", "X": "CB",
}  # fmt: skip

RESIDUE_ATOMS = tuple((*_BACKBONE, *_SIDE_CHAINS[letter].split()) for letter in AATYPES_WITH_X)
"""Heavy atoms of each aatype, the terminal OXT among them; of X only those that every residue but glycine has."""


def _atom37_mask() -> np.ndarray:
    mask = np.zeros((NUM_TOKENS, NUM_ATOM37), dtype=bool)
    for aatype, names in enumerate(RESIDUE_ATOMS):
        mask[aatype, [ATOM37_INDEX[name] for name in names]] = True
    return mask


ATOM37_OF_AATYPE = _atom37_mask()
"""[21, 37] bool: the atom37 slots that a residue type can fill."""
