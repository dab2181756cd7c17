"""How compact a chain is for its length."""

import numpy as np

PREFACTOR, EXPONENT = 2.2, 0.38
"""Radius of gyration of globular proteins of N residues: 2.2 N^0.38 angstrom (Skolnick, Kolinski & Ortiz 1997)."""


def radius_of_gyration(ca: np.ndarray) -> float:
    """Root mean square distance of the CA atoms [N, 3] from their mean, angstrom."""
    return float(np.sqrt(((ca - ca.mean(0)) ** 2).sum(-1).mean()))


def expected_radius(length: int) -> float:
    """Of a folded protein of so many residues, angstrom."""
    return PREFACTOR * length**EXPONENT


def compactness(ca: np.ndarray, chain_idx: np.ndarray) -> float:
    """Radius of gyration as a share of the expected one, of each chain, as the mean over residues."""
    chains = [ca[chain_idx == chain] for chain in np.unique(chain_idx)]
    shares = [radius_of_gyration(chain) / expected_radius(len(chain)) for chain in chains]
    return float(np.average(shares, weights=[len(chain) for chain in chains]))
