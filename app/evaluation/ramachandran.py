"""Where phi and psi of a residue lie: in regions that folded proteins use, or outside of them.

The regions are boxes of our own around what Ramachandran, Ramakrishnan & Sasisekharan (1963) found to be free of
overlaps and Lovell et al. (2003) to be populated. How well they hold on real structures is in docs/metrics.md.
"""

import numpy as np

from app.chem.residues import AATYPES

Box = tuple[float, float, float, float]
"""phi from, to, psi from, to: degrees."""

_TURN = (45, 70, -150, -110)  # the second residue of turns of type II'

GENERAL: tuple[Box, ...] = (
    (-180, -40, 80, 180),  # strands and polyproline
    (-180, -40, -180, -160),  # the same, beyond 180
    (-165, -70, 40, 80),  # between strands and helices, gamma turns
    (-160, -50, -20, 40),  # the bridge
    (-155, -35, -75, -20),  # right-handed helices
    (35, 80, -10, 75),  # left-handed helices
    _TURN,
)

GLYCINE: tuple[Box, ...] = (
    *GENERAL,
    *((-phi_to, -phi_from, -psi_to, -psi_from) for phi_from, phi_to, psi_from, psi_to in GENERAL),  # no CB: either hand
    (-180, -40, -180, -140),  # extended
    (40, 180, 140, 180),
)

PROLINE: tuple[Box, ...] = (
    (-115, -40, 100, 180),
    (-115, -40, -180, -160),
    (-100, -65, 45, 100),
    (-115, -35, -75, 40),
)

_BOXES_OF = {AATYPES.index("G"): GLYCINE, AATYPES.index("P"): PROLINE}


def outside(phi: np.ndarray, psi: np.ndarray, aatypes: np.ndarray) -> np.ndarray:
    """[N] bool: in none of the regions of the residue's type. phi, psi: [N] radian, NaN where there is none, which is
    not outside; aatypes: [N]."""
    phi, psi = np.degrees(phi), np.degrees(psi)
    inside = _inside(phi, psi, GENERAL)
    for aatype, boxes in _BOXES_OF.items():
        inside = np.where(aatypes == aatype, _inside(phi, psi, boxes), inside)
    return ~inside & np.isfinite(phi) & np.isfinite(psi)


def _inside(phi: np.ndarray, psi: np.ndarray, boxes: tuple[Box, ...]) -> np.ndarray:
    hits = [(phi >= box[0]) & (phi <= box[1]) & (psi >= box[2]) & (psi <= box[3]) for box in boxes]
    return np.any(hits, axis=0)
