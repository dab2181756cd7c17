"""Do atoms of the backbone lie within one another."""

import torch
from torch import Tensor

from app.chem import atoms

RADII = {atoms.N: 1.55, atoms.CA: 1.70, atoms.C: 1.70, atoms.CB: 1.70, atoms.O: 1.52}
"""Van der Waals radii by slot of atom37, angstrom (Bondi 1964)."""

OVERLAP = 0.9
"""Angstrom that spheres may share. Hydrogen bonds and tight turns of good crystal structures take up to 0.6."""

_ROWS = 256  # atoms that are compared with others at once: memory and time do not grow with the square of the length


def clashes(atom37: Tensor, mask: Tensor, chain_idx: Tensor, overlap: float = OVERLAP) -> Tensor:
    """Pairs of backbone atoms (CB among them) that overlap, for each 100 residues, [...].

    Two atoms overlap where the spheres of their van der Waals radii do by more than `overlap` angstrom. Those of one
    residue and of neighbours in a chain, at the distances of bonds and angles, are not compared. atom37:
    [..., N, 37, 3] angstrom; an atom at the origin, where absent ones are, is left out. mask: [..., N], 1 = present.
    chain_idx: [..., N].
    """
    slots = list(RADII)
    points = atom37[..., slots, :]
    there = (points != 0).any(-1) & points.isfinite().all(-1) & mask.bool()[..., None]
    radii = points.new_tensor(list(RADII.values())).expand(points.shape[:-1])
    points, there, radii = points.flatten(-3, -2), there.flatten(-2), radii.flatten(-2)  # [..., M, 3], [..., M]

    residue = torch.arange(mask.shape[-1], device=mask.device).repeat_interleave(len(slots))
    chain = chain_idx.repeat_interleave(len(slots), dim=-1)
    pairs = sum(
        _overlapping(points, radii, there, residue, chain, rows, overlap)
        for rows in torch.arange(len(residue), device=mask.device).split(_ROWS)
    )
    return 50 * pairs / mask.sum(-1).clamp(min=1)  # each pair is there twice


def _overlapping(points, radii, there, residue, chain, rows: Tensor, overlap: float) -> Tensor:
    """[...] pairs of one of these atoms with any. Only those in the box around these are looked at."""
    own, mine = points[..., rows, :], there[..., rows, None]
    reach = 2 * max(RADII.values()) - overlap
    low = torch.where(mine, own, torch.inf).amin(-2, keepdim=True) - reach
    high = torch.where(mine, own, -torch.inf).amax(-2, keepdim=True) + reach
    inside = there & ((points > low) & (points < high)).all(-1)
    others = inside.reshape(-1, inside.shape[-1]).any(0).nonzero().flatten()
    limit = radii[..., rows, None] + radii[..., None, others] - overlap
    within = torch.cdist(own, points[..., others, :], compute_mode="donot_use_mm_for_euclid_dist") < limit
    neighbours = (residue[rows, None] - residue[others]).abs() < 2
    neighbours = neighbours & (chain[..., rows, None] == chain[..., None, others])
    return (within & ~neighbours & mine & there[..., None, others]).sum((-1, -2))
