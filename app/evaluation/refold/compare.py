"""A refolded structure held against the design."""

import torch
from torch import Tensor

from app.evaluation.refold.plugin import Folded
from app.evaluation.tm_score import tm_score
from app.geometry.superpose import superpose

_CA = 1  # of N, CA, C


def backbone_rmsd(mobile: Tensor, target: Tensor) -> float:
    """Root mean square distance over N, CA and C of all residues where it is least, angstrom. [N, 3, 3] each."""
    mobile, target = mobile.double().flatten(0, 1), target.double().flatten(0, 1)
    moved = superpose(mobile, target, torch.ones(len(mobile)))
    return float((moved - target).square().sum(-1).mean().sqrt())


def likeness(folded: Folded, design: Tensor) -> tuple[float, float]:
    """TM-score to the design's CA atoms, normalised by its length, and the mean pLDDT of CA (0 to 100). design:
    [N, 3, 3] angstrom."""
    there = torch.ones(len(design))
    return float(tm_score(folded.backbone[:, _CA], design[:, _CA], there)), float(folded.plddt.mean())
