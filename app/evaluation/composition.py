"""Which residue types a sequence is made of, and how far that is from nature."""

import numpy as np
from scipy.spatial.distance import jensenshannon

from app.chem.residues import AATYPES, NUM_AATYPES

SWISS_PROT = {
    "A": 8.25, "R": 5.52, "N": 4.06, "D": 5.46, "C": 1.38, "Q": 3.93, "E": 6.71, "G": 7.07, "H": 2.27, "I": 5.91,
    "L": 9.64, "K": 5.79, "M": 2.41, "F": 3.86, "P": 4.74, "S": 6.65, "T": 5.36, "W": 1.10, "Y": 2.92, "V": 6.86,
}  # fmt: skip
"""Per cent of its residues."""

SOURCE = "UniProtKB/Swiss-Prot, release statistics of 2023"

_NATURAL = np.array([SWISS_PROT[letter] for letter in AATYPES])


def shares(aatypes: np.ndarray) -> np.ndarray:
    """[20] share of each type among the known residues of [N], in the order of AATYPES; NaN where none is known."""
    counts = np.bincount(aatypes[aatypes < NUM_AATYPES], minlength=NUM_AATYPES)
    return counts / counts.sum() if counts.sum() else np.full(NUM_AATYPES, np.nan)


def distance_to_natural(composition: np.ndarray) -> float:
    """Jensen-Shannon divergence (Lin 1991) of shares [20] from those of Swiss-Prot, bits: 0 for equal ones, 1 for what
    has nothing in common."""
    return float(jensenshannon(composition, _NATURAL, base=2) ** 2)
