"""What can be said of a design at once: how it compares with what was given, and whether its sequence looks wrong."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from app.chem import atoms
from app.chem.residues import ONE_TO_THREE, UNKNOWN, to_sequence
from app.geometry.superpose import superpose
from app.sampling.given import Given
from app.sampling.inputs import Task

DEGENERATE_SHARE = 0.4
"""A designed sequence with more than this share of one residue type is given a warning."""


def measures(task: Task, given: Given | None, atom37: Tensor, aatypes: Tensor) -> dict[str, Any]:
    """Further fields of a design's record.

    given: what the task started from. atom37: [N, 37, 3] angstrom, aatypes: [N], of the design.
    recovery: inverse folding, share of the residues of known type that came out as given. ca_rmsd: forward folding of a
    sequence with a structure, CA RMSD after superposition, angstrom. warning: the designed sequence is degenerate.
    """
    found: dict[str, Any] = {}
    if task is Task.INVERSE_FOLDING and given is not None:
        found["recovery"] = recovery(aatypes, given.aatypes)
    if task is Task.FORWARD_FOLDING and given is not None and given.frames is not None:
        found["ca_rmsd"] = ca_rmsd(atom37[:, atoms.CA], given.frames.trans)
    if not task.gives_tokens and (aatypes != UNKNOWN).any() and (warning := degeneracy(aatypes)):
        found["warning"] = warning
    return found


def recovery(designed: Tensor, native: Tensor) -> float | None:
    """Share of equal residue types, [N] and [N], over those known in `native`; None where none is."""
    known = native != UNKNOWN
    return round(float((designed == native)[known].float().mean()), 4) if known.any() else None


def ca_rmsd(ca: Tensor, native: Tensor) -> float:
    """Root mean square distance of CA [N, 3] from [N, 3] after superposition, angstrom."""
    moved = superpose(ca, native, torch.ones(len(ca)))
    return round(float((moved - native).square().sum(-1).mean().sqrt()), 4)


def degeneracy(aatypes: Tensor) -> str | None:
    """A warning where one residue type makes up more than `DEGENERATE_SHARE` of the sequence [N]."""
    letter, count = Counter(to_sequence(aatypes)).most_common(1)[0]
    share = count / len(aatypes)
    return f"degenerate sequence: {share:.0%} {ONE_TO_THREE[letter]}" if share > DEGENERATE_SHARE else None
