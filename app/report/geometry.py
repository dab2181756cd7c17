"""Lengths, angles and torsions of many backbones at once, for plots of how they are distributed."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters

import biotite.structure as struc
import numpy as np

from app.report.models import CA, C, Model, N


@dataclass(frozen=True)
class Geometry:
    """Of all residues that have what it takes, one after another."""

    ca_ca: np.ndarray  # angstrom, to the next residue of the chain
    c_n: np.ndarray  # angstrom, the peptide bond
    ca_c_n: np.ndarray  # degrees
    c_n_ca: np.ndarray  # degrees
    phi_psi: np.ndarray  # [M, 2] degrees


def measured(models: Sequence[Model]) -> Geometry:
    """Neighbours in a chain are taken as bonded; a break shows as a long bond. Where residues are missing by their
    numbers, there is none."""
    empty = np.zeros((0, 4, 3), dtype=np.float32)
    backbone = np.concatenate([empty, *(model.backbone for model in models)])
    follows = np.concatenate([np.zeros(0, bool), *(_follows(model) for model in models)])
    n, ca, c = (backbone[:, atom] for atom in (N, CA, C))
    next_n, next_ca = _next(n), _next(ca)
    phi = np.roll(np.degrees(struc.dihedral(c, next_n, next_ca, _next(c))), 1)  # of the residue itself
    psi = np.degrees(struc.dihedral(n, ca, c, next_n))
    both = follows & np.roll(follows, 1)
    phi_psi = np.stack([phi, psi], axis=-1)[both]
    return Geometry(
        ca_ca=_finite(struc.distance(ca, next_ca)[follows]),
        c_n=_finite(struc.distance(c, next_n)[follows]),
        ca_c_n=_finite(np.degrees(struc.angle(ca, c, next_n))[follows]),
        c_n_ca=_finite(np.degrees(struc.angle(c, next_n, next_ca))[follows]),
        phi_psi=phi_psi[np.isfinite(phi_psi).all(-1)],
    )


def _follows(model: Model) -> np.ndarray:
    """[N] bool: the next residue is in the same chain, and the next by number as far as numbers tell."""
    chains = np.array(model.chains)
    follows = np.append(chains[1:] == chains[:-1], False)
    numbers = np.array([int(number.rstrip(ascii_letters) or 0) for number in model.numbers])
    return follows & np.append(np.diff(numbers) <= 1, False)


def _next(points: np.ndarray) -> np.ndarray:
    return np.roll(points, -1, axis=0)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
