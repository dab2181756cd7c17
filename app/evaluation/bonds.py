"""Is the backbone bonded as in crystals: lengths and angles against those of Engh & Huber (1991)."""

from math import radians
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from app.chem import backbone_geometry as ideal


class Standard(NamedTuple):
    """A value as small molecules have it, and its standard deviation among them."""

    mean: float
    deviation: float


LENGTHS = {
    "n_ca": Standard(ideal.N_CA, 0.019),
    "ca_c": Standard(ideal.CA_C, 0.021),
    "c_n": Standard(ideal.C_N, 0.014),
}
"""Angstrom. `c_n` is the peptide bond, to the next residue."""

ANGLES = {
    "n_ca_c": Standard(ideal.N_CA_C, radians(2.8)),
    "ca_c_n": Standard(ideal.CA_C_N, radians(2.0)),
    "c_n_ca": Standard(ideal.C_N_CA, radians(1.8)),
}
"""Radian. The last two are those at the peptide bond: CA, C and the next N; C, the next N and the next CA."""

AT_PEPTIDE_BOND = ("c_n", "ca_c_n", "c_n_ca")
"""What tells residues that fit together. The others are ideal by construction where atoms are made from frames."""

OUTLIER = 4.0
"""Standard deviations from which on a length or angle counts as wrong, as MolProbity has it (Chen et al. 2010)."""


def deviations(backbone: Tensor, bond: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """By the names of `LENGTHS` and `ANGLES`, how many standard deviations each is off, [..., N]; NaN where there is
    none: at absent residues, and of those at the peptide bond where the next residue is not bonded.

    backbone: [..., N, 3, 3], N, CA and C in angstrom; bond: [..., N] bool, the next residue is bonded to this one;
    mask: [..., N], 1 = present.
    """
    n, ca, c = backbone.unbind(-2)
    next_n, next_ca = torch.roll(n, -1, dims=-2), torch.roll(ca, -1, dims=-2)
    here, bonded = mask.bool(), bond.bool().clone()
    bonded[..., -1] = False
    bonded &= here & torch.roll(here, -1, dims=-1)
    found = {
        "n_ca": (n - ca).norm(dim=-1),
        "ca_c": (ca - c).norm(dim=-1),
        "c_n": (c - next_n).norm(dim=-1),
        "n_ca_c": _angle(n, ca, c),
        "ca_c_n": _angle(ca, c, next_n),
        "c_n_ca": _angle(c, next_n, next_ca),
    }
    return {
        name: torch.where(
            bonded if name in AT_PEPTIDE_BOND else here,
            ((found[name] - mean) / deviation).nan_to_num(nan=torch.inf),  # coordinates that are no numbers are wrong
            torch.nan,
        )
        for name, (mean, deviation) in (LENGTHS | ANGLES).items()
    }


def share_within(*off: Tensor, outlier: float = OUTLIER) -> Tensor:
    """Share of lengths or angles that are less than `outlier` standard deviations off. off: some of `deviations`,
    [..., N] each. Returns [...]; NaN where there is none to judge."""
    every = torch.cat(off, dim=-1)
    judged = ~every.isnan()
    return ((every.abs() < outlier) & judged).sum(-1) / judged.sum(-1)


def _angle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Angle at b, radian. Points [..., 3]."""
    cosine = (F.normalize(a - b, dim=-1) * F.normalize(c - b, dim=-1)).sum(-1)
    return cosine.clamp(-1, 1).acos()
