"""What can be said of a design at once: how it compares with what was given, and how it joins it."""

from typing import Any

import torch
from torch import Tensor

from app.chem import atoms
from app.chem.residues import UNKNOWN
from app.geometry.superpose import superpose
from app.sampling.designs import Design
from app.sampling.inputs import Task


def measures(task: Task, design: Design, atom37: Tensor, aatypes: Tensor, peptide_bond: Tensor) -> dict[str, Any]:
    """Further fields of a design's record.

    task: the sampler's. atom37: [N, 37, 3] angstrom, as written; aatypes: [N]; peptide_bond: [N] bool, the next residue
    is bonded to this one.
    recovery: of a sequence for a given structure, the share of the designed residues that came out as the input has
    them. ca_rmsd: of a structure for a given sequence, CA RMSD from the input's after superposition, angstrom.
    junctions: of partial design, see `junctions`.
    """
    found: dict[str, Any] = {}
    given = design.given
    if given is None:
        return found
    if task.gives_frames:
        free = ~design.fixed
        found["recovery"] = recovery(aatypes[free], given.aatypes[free])
    if task.gives_tokens and given.frames is not None:
        found["ca_rmsd"] = ca_rmsd(atom37[:, atoms.CA], given.frames.trans)
    if given.kept is not None:
        found["junctions"] = junctions(design, atom37, peptide_bond)
    return found


def recovery(designed: Tensor, native: Tensor) -> float | None:
    """Share of equal residue types, [N] and [N], over those known in `native`; None where none is."""
    known = native != UNKNOWN
    return round(float((designed == native)[known].float().mean()), 4) if known.any() else None


def ca_rmsd(ca: Tensor, native: Tensor) -> float:
    """Root mean square distance of CA [N, 3] from [N, 3] after superposition, angstrom."""
    moved = superpose(ca, native, torch.ones(len(ca)))
    return round(float((moved - native).square().sum(-1).mean().sqrt()), 4)


def junctions(design: Design, atom37: Tensor, peptide_bond: Tensor) -> list[dict[str, Any]]:
    """Bond geometry wherever fixed and designed residues meet in a chain.

    Of each peptide bond there: the residues that it joins (`between`), the C-N length (`c_n`, angstrom; ideal is 1.33)
    and the angles CA-C-N and C-N-CA (`ca_c_n`, `c_n_ca`, degrees; 116.2 and 121.7).
    """
    meets = (design.fixed[:-1] != design.fixed[1:]) & peptide_bond[:-1]
    found = []
    for here in meets.nonzero()[:, 0].tolist():
        ca, c = atom37[here, [atoms.CA, atoms.C]]
        n, next_ca = atom37[here + 1, [atoms.N, atoms.CA]]
        found.append(
            {
                "between": [design.layout.name(here), design.layout.name(here + 1)],
                "c_n": round(float((n - c).norm()), 3),
                "ca_c_n": _degrees(ca - c, n - c),
                "c_n_ca": _degrees(c - n, next_ca - n),
            }
        )
    return found


def _degrees(one: Tensor, other: Tensor) -> float:
    """Angle between two vectors [3]."""
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=0).clamp(-1, 1)
    return round(float(cosine.acos().rad2deg()), 2)
