"""What looks wrong with a design, in short sentences: what a sentence is about comes before its colon."""

from collections import Counter
from collections.abc import Iterable

from torch import Tensor

from app.chem import atoms
from app.chem.residues import ONE_TO_THREE, UNKNOWN, to_sequence
from app.sampling.designs import Design
from app.sampling.inputs import Task
from app.structure.read import PEPTIDE_BOND

DEGENERATE_SHARE = 0.4
"""A designed sequence with more than this share of one residue type is degenerate."""

DEGENERATE_COUNT = 4
"""And this many of it: among a few designed residues two alike mean nothing."""

CA_CA_BREAK = 4.5
"""Neighbours whose CA are farther apart are not bonded, angstrom. A trans peptide's are 3.80 apart, stretched to the
longest C-N that counts as a bond (`PEPTIDE_BOND`) some 4.3."""

UNFOLDED = (1.927, 0.598)
"""Radius of gyration of an unfolded chain of N residues is R N^v, angstrom (Kohn et al. 2004)."""

EXPLODED = 2.0
"""Beyond so many times that radius no chain is."""

_NAMED = 3


def flags(task: Task, design: Design, atom37: Tensor, aatypes: Tensor, peptide_bond: Tensor) -> list[str]:
    """Empty where nothing is wrong. Only what was designed is looked at.

    task: the sampler's. atom37: [N, 37, 3] angstrom, as written; aatypes: [N]; peptide_bond: [N] bool, the next residue
    is bonded to this one.
    """
    sequence, places = design.designs_sequence(task), design.designs_structure(task)
    found = [untyped(design, aatypes, sequence), degeneracy(aatypes[sequence & (aatypes != UNKNOWN)])]
    if places.any():
        found += [explosion(atom37[:, atoms.CA]), breaks(design, atom37, peptide_bond, places)]
    return [sentence for sentence in found if sentence]


def summary(flagged: Iterable[list[str]]) -> str | None:
    """How many designs have flags, and of which kind; None where none has."""
    every = [of_one for of_one in flagged if of_one]
    kinds = Counter(kind for of_one in every for kind in dict.fromkeys(each.partition(":")[0] for each in of_one))
    told = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    return f"flagged {len(every)}: {told}" if every else None


def untyped(design: Design, aatypes: Tensor, designed: Tensor) -> str | None:
    """Designed residues that have no type. aatypes: [N]; designed: [N] bool."""
    left = (designed & (aatypes == UNKNOWN)).nonzero()[:, 0].tolist()
    if not left:
        return None
    if len(left) == int(designed.sum()):
        return "X left: no residue has a type, there is no sequence"
    return f"X left: {_some(design.layout.name(index) for index in left)}"


def degeneracy(aatypes: Tensor) -> str | None:
    """Of a designed sequence [N], one residue type that makes up too much."""
    if not len(aatypes):
        return None
    letter, count = Counter(to_sequence(aatypes)).most_common(1)[0]
    share = count / len(aatypes)
    if share <= DEGENERATE_SHARE or count < DEGENERATE_COUNT:
        return None
    return f"degenerate sequence: {share:.0%} {ONE_TO_THREE[letter]}"


def explosion(ca: Tensor) -> str | None:
    """CA atoms [N, 3], angstrom, that are spread wider than a chain can be."""
    radius = float((ca - ca.mean(0)).square().sum(-1).mean().sqrt())
    factor, exponent = UNFOLDED
    unfolded = factor * len(ca) ** exponent
    if radius <= EXPLODED * unfolded:
        return None
    return f"exploded: radius of gyration {radius:.0f} angstrom, where an unfolded chain has {unfolded:.0f}"


def breaks(design: Design, atom37: Tensor, peptide_bond: Tensor, designed: Tensor) -> str | None:
    """Neighbours in a chain that are not bonded, of which one at least was placed. atom37: [N, 37, 3]; others [N]."""
    judged = peptide_bond[:-1] & (designed[:-1] | designed[1:])
    c_n = (atom37[1:, atoms.N] - atom37[:-1, atoms.C]).norm(dim=-1)
    ca_ca = (atom37[1:, atoms.CA] - atom37[:-1, atoms.CA]).norm(dim=-1)
    broken = (judged & ((c_n > PEPTIDE_BOND) | (ca_ca > CA_CA_BREAK))).nonzero()[:, 0].tolist()
    if not broken:
        return None
    layout = design.layout  # made anew each time
    where = _some(f"{layout.name(index)}-{layout.name(index + 1)}" for index in broken)
    return f"chain broken: {len(broken)} of {int(judged.sum())} bonds, {where}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join([*names[:_NAMED], *(["..."] if len(names) > _NAMED else [])])
