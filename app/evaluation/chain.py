"""Is it a chain: distances between neighbouring CA atoms, breaks and gaps."""

import torch
from torch import Tensor

from app.chem.backbone import CA_CA_TRANS

CA_CA_TOLERANCE = 0.4
"""Angstrom either side of 3.80. Trans peptide bonds in crystal structures lie within 0.1; a chain that is this far out
is still one that refinement can close, one beyond is broken or clashing."""

PEPTIDE_BOND = 2.0
"""C and the next N within this distance are bonded, angstrom; an ideal bond is 1.33."""


def linked(backbone: Tensor, chain_idx: Tensor) -> Tensor:
    """[N] bool: the next residue is of the same chain and bonded to this one. backbone: [N, 3, 3], N, CA and C in
    angstrom; chain_idx: [N]."""
    near = (backbone[:-1, 2] - backbone[1:, 0]).norm(dim=-1) < PEPTIDE_BOND
    return torch.cat([near & (chain_idx[1:] == chain_idx[:-1]), near.new_zeros(1)])[: len(backbone)]


def adjacent(chain_idx: Tensor, res_idx: Tensor) -> Tensor:
    """[N] bool: the next residue is of the same chain and has the next number, so that it should be bonded."""
    follows = (chain_idx[1:] == chain_idx[:-1]) & (res_idx[1:] == res_idx[:-1] + 1)
    return torch.cat([follows, follows.new_zeros(1)])[: len(chain_idx)]


def ca_ca_validity(ca: Tensor, bond: Tensor, tolerance: float = CA_CA_TOLERANCE) -> Tensor:
    """Share of bonded neighbours whose CA atoms are 3.80 angstrom apart, give or take the tolerance.

    ca: [..., N, 3], angstrom; bond: [..., N] bool, the next residue is bonded to this one. Returns [...]; NaN where
    there is no bond to judge.
    """
    distance = (ca[..., 1:, :] - ca[..., :-1, :]).norm(dim=-1)
    judged = bond[..., :-1].bool()
    valid = ((distance - CA_CA_TRANS).abs() <= tolerance) & judged
    return valid.sum(-1) / judged.sum(-1)


def sequence_recovery(designed: Tensor, native: Tensor, mask: Tensor) -> Tensor:
    """Share of residues with the native type. designed, native: [..., N] aatypes; mask: [..., N]. Returns [...]; NaN
    where there is no residue to judge."""
    mask = mask.bool()
    return ((designed == native) & mask).sum(-1) / mask.sum(-1)
