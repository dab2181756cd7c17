"""TM-score of a structure against another of the same residues (Zhang & Skolnick 2004)."""

import torch
from torch import Tensor

from app.geometry.superpose import kabsch

SHORTEST = 4
"""Residues of the shortest fragments that superpositions start from."""

ROUNDS = 20
"""Most superpositions of one search, each over the residues that the one before brought near."""


def scale(length: int) -> float:
    """d0, angstrom: the distance at which a residue counts half, such that scores of unrelated pairs do not depend on
    the length. At least 0.5."""
    return max(0.5, 1.24 * max(length - 15, 0) ** (1 / 3) - 1.8)


def tm_score(ca: Tensor, native: Tensor, mask: Tensor) -> Tensor:
    """Mean over residues of 1 / (1 + (d / d0)^2), at the superposition where it is highest: 1 for equal structures,
    some 0.17 for unrelated ones, above 0.5 where the fold is the same.

    ca, native: [..., N, 3] angstrom, residue i of one is residue i of the other; mask: [..., N], 1 = present in both.
    Returns [...] float32 on the CPU; residues that are not finite score 0. The highest is searched for: from the
    superposition of fragments of all, a half, a quarter ... of the residues, each improved by superposing what it
    brought near.
    """
    ca, native, mask = ca.float().cpu(), native.float().cpu(), mask.cpu().bool()
    finite = mask & ca.isfinite().all(-1) & native.isfinite().all(-1)
    rows = zip(*(x.reshape(-1, *x.shape[mask.dim() - 1 :]) for x in (ca, native, mask, finite)), strict=True)
    scores = [_highest(one[here], other[here], int(all_.sum())) for one, other, all_, here in rows]
    return torch.stack(scores).reshape(mask.shape[:-1])


def _highest(ca: Tensor, native: Tensor, length: int) -> Tensor:
    """[N, 3] and [N, 3] -> []; length: residues that the mean is over."""
    if len(ca) == 0:
        return torch.zeros(())
    d0 = scale(length)
    near = min(max(d0, 4.5), 8.0)  # angstrom
    chosen = _fragments(len(ca))  # [S, N], what each search superposes
    best = torch.zeros(())
    for _ in range(ROUNDS):
        distance = _distances(ca, native, chosen)
        best = torch.maximum(best, (1 / (1 + (distance / d0) ** 2)).sum(-1).amax() / length)
        third = distance.sort(-1).values[:, min(len(ca), 3) - 1]  # it takes three points to superpose
        now = distance <= third.clamp(min=near)[:, None]
        if torch.equal(now, chosen):
            break
        chosen = now.unique(dim=0)
    return best


def _fragments(length: int) -> Tensor:
    """[S, N] bool: all residues, and stretches of a half, a quarter ... of them, each half a stretch after another."""
    stretches, size = [], length
    while True:
        starts = {*range(0, length - size + 1, max(1, size // 2)), length - size}
        stretches += [(start, start + size) for start in sorted(starts)]
        if size <= SHORTEST:
            break
        size = max(SHORTEST, size // 2)
    position = torch.arange(length)
    return torch.stack([(position >= first) & (position < end) for first, end in stretches])


def _distances(ca: Tensor, native: Tensor, chosen: Tensor) -> Tensor:
    """Of all residues, where the chosen ones are superposed: [S, N]."""
    mobile, target = ca.expand(len(chosen), *ca.shape), native.expand(len(chosen), *native.shape)
    rotation, centre, onto = kabsch(mobile, target, chosen)
    return ((mobile - centre) @ rotation.mT + onto - target).norm(dim=-1)
