"""Blueprints of the synthetic demo chains: which helices and strands there are, and where each is meant to lie.

A fold is a list of elements on a grid: a column is the distance between neighbouring strands, a layer that between
packed sheets and helices. Strands of a sheet run along z, stand side by side along x and twist about x; the sheet's
faces look along y. `demo_assembly` then finds backbone torsions that bring a chain there. All of it is synthetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from app.chem import atoms as slot
from app.geometry import internal

COLUMN, LAYER = 4.8, 10.0
"""Grid spacings, angstrom: strand to strand, and sheet to helix; two columns lie between packed helices."""

TWIST_SHEETS = np.radians((-10.0, -30.0))
TWIST_HELICES = np.radians((10.0, 20.0))
"""Turn of an element against its neighbour one column on (about x) and one layer on (about y): the left-handed twist of
real sheets, the crossing angle of 20 degrees in bundles of helices."""

HYDROGEN_BOND, NARROW, WIDE, PARALLEL = 2.9, 5.3, 4.5, 4.8
"""Distances between paired strands, angstrom: N to O; CA to CA of residues that face each other, with hydrogen bonds
between them and without (antiparallel), and in parallel strands."""

BASINS = {
    "H": (-63.0, -43.0),
    "E": (-121.0, 127.0),
    "A": (-68.0, -36.0),
    "B": (-115.0, 132.0),
    "P": (-68.0, 146.0),
    "L": (58.0, 40.0),
    "1": (57.0, 32.0),
    "2": (82.0, 2.0),
    "3": (58.0, -124.0),
    "4": (-82.0, 2.0),
}
"""phi, psi in degrees of each conformation: helix H, strand E; in loops alpha A, beta B, polyproline P, left-handed L;
1 and 2 are the two residues of a type I' turn, 3 and 4 those of a type II' turn."""

ROLLS = 18
"""Turns about its axis in which a helix may be placed."""

FREE, LOOP = "?", "AAABBPPPL"
"""A loop residue whose conformation is yet to be found, and the conformations it may take, by frequency."""

H, E = "H", "E"
FOLDS = {
    "helix hairpin": [(H, 0, 0, 1), (H, 2, 0, -1)],
    "three-helix bundle": [(H, 0, 0, 1), (H, 2, 0, -1), (H, 1, 0.83, 1)],
    "four-helix bundle": [(H, 0, 0, 1), (H, 2, 0, -1), (H, 2, 0.97, 1), (H, 0, 0.97, -1)],
    "five-strand meander": [(E, 0, 0, 1), (E, 1, 0, -1), (E, 2, 0, 1), (E, 3, 0, -1), (E, 4, 0, 1)],
    "hairpin and helix": [(E, 0, 0, 1), (E, 1, 0, -1), (H, 0.5, 1, 1)],
    "helix and hairpin": [(H, 0.5, 1, 1), (E, 0, 0, -1), (E, 1, 0, 1)],
    "helix and meander": [(H, 1, 1, 1), (E, 0, 0, -1), (E, 1, 0, 1), (E, 2, 0, -1)],
    "meander and helix": [(E, 0, 0, 1), (E, 1, 0, -1), (E, 2, 0, 1), (H, 1, -1, -1)],
    "beta-alpha-beta": [(E, 0, 0, 1), (H, 0.5, -1, -1), (E, 1, 0, 1)],
    "three-layer": [(E, 1, 0, 1), (H, 0.5, 1, -1), (E, 0, 0, 1), (H, 1.3, -1, -1), (E, 2, 0, 1)],
    "two-layer": [(E, 0, 0, 1), (H, 0, -1, -1), (E, 1, 0, 1), (H, 2, -1, -1), (E, 2, 0, 1)],
    "helix, meander, helix": [
        (H, 0.5, 1, 1),
        (E, 0, 0, -1),
        (E, 1, 0, 1),
        (E, 2, 0, -1),
        (E, 3, 0, 1),
        (H, 2.5, 1, -1),
    ],
    "grasp": [(E, 1, 0, 1), (E, 0, 0, -1), (H, 1.5, 1, 1), (E, 3, 0, -1), (E, 2, 0, 1)],
    "ferredoxin-like": [(E, 1, 0, 1), (H, 2.5, -1, -1), (E, 3, 0, 1), (E, 2, 0, -1), (H, 0.5, -1, 1), (E, 0, 0, -1)],
    "large sandwich": [
        (E, 0, 0, 1),
        (E, 1, 0, -1),
        (E, 2, 0, 1),
        (E, 3, 0, -1),
        (E, 3, 1, 1),
        (E, 2, 1, -1),
        (E, 1, 1, 1),
        (E, 0, 1, -1),
    ],
    "sandwich": [(E, 0, 0, 1), (E, 1, 0, -1), (E, 2, 0, 1), (E, 2, 1, -1), (E, 1, 1, 1), (E, 0, 1, -1)],
}
"""Elements from N to C terminus: kind, column, layer, direction along z. Crossings between parallel strands are
right-handed, as in nature."""

LENGTHS = {
    "helix hairpin": (range(16, 21), None),
    "three-helix bundle": (range(13, 23), None),
    "four-helix bundle": (range(17, 27), None),
    "five-strand meander": (None, range(7, 10)),
    "hairpin and helix": (range(14, 21), range(7, 10)),
    "helix and hairpin": (range(14, 21), range(7, 10)),
    "helix and meander": (range(13, 21), range(6, 10)),
    "meander and helix": (range(13, 21), range(6, 10)),
    "beta-alpha-beta": (range(14, 21), range(6, 9)),
    "three-layer": (range(12, 18), range(5, 8)),
    "two-layer": (range(12, 18), range(5, 8)),
    "helix, meander, helix": (range(14, 24), range(7, 11)),
    "grasp": (range(12, 18), range(6, 9)),
    "ferredoxin-like": (range(12, 18), range(5, 9)),
    "large sandwich": (None, range(6, 10)),
    "sandwich": (None, range(6, 9)),
}
"""Residues of a helix and of a strand, by fold; the elements of one chain differ by one or two."""


@dataclass
class Blueprint:
    """A chain to be built. Residues are named by element and place in it, since loops are still to be chosen."""

    fold: str
    kinds: str  # H or E of every element
    targets: list[np.ndarray]  # of every element the positions it may take: [alternatives, length, 5, 3] angstrom
    loops: list[list[str]]  # between elements, and last the two tails: possible conformations, of several lengths
    springs: list[tuple[tuple[int, int, int], tuple[int, int, int], float]]
    """Atoms (element, residue in it, atom) and the distance wanted between them: strand pairing."""


def draw_blueprint(rng: np.random.Generator, fold: str) -> Blueprint:
    """A random variant of the fold: lengths, registers, loops, tilts and spacing."""
    plan = FOLDS[fold]
    if all(kind == H for kind, *_ in plan) and rng.random() < 0.5:
        plan = [(kind, column, -layer, way) for kind, column, layer, way in plan]  # the bundle of the other hand
    helix, strand = (pick(rng, choices) if choices else 0 for choices in LENGTHS[fold])
    lengths = [(helix if kind == H else strand) + pick(rng, (-1, 0, 1)) for kind, *_ in plan]
    for k in range(1, len(plan) - 1):
        if _is_hairpin(plan, k - 1) and _is_hairpin(plan, k):
            lengths[k] += lengths[k] % 2  # an even strand can have tight turns at both ends
    strands = _register(rng, plan, lengths)
    targets = [_target(rng, plan, k, length, strands.get(k)) for k, length in enumerate(lengths)]
    loops = [_loop(rng, plan, strands, targets, k) for k in range(len(plan) - 1)]
    tails = [[FREE * pick(rng, (1, 2, 3))] for _ in range(2)]
    kinds = "".join(kind for kind, *_ in plan)
    return Blueprint(fold, kinds, targets, loops + tails, _pairing(plan, lengths, strands))


@dataclass
class _Strand:
    z: float  # centre along z, angstrom
    parity: int  # residue k's N-H and C=O point to +x where k + parity is even
    partner: int | None = None  # the strand in the column before
    register: int = 0  # k + k' of paired residues (antiparallel), or k' - k (parallel)


def pick(rng: np.random.Generator, choices):
    """One of the choices. (Of the generator only uniform draws are used: they change least between numpy versions.)"""
    return choices[int(rng.random() * len(choices))]


def _register(rng, plan, lengths) -> dict[int, _Strand]:
    """Line the strands of each sheet up from the first column on, so that hydrogen bonds of neighbours can meet."""
    strands: dict[int, _Strand] = {}
    rise = _ideal_strand_rise()
    order = sorted((k for k, e in enumerate(plan) if e[0] == E), key=lambda k: (plan[k][2], plan[k][1]))
    for k in order:
        before = next((j for j in strands if plan[j][2] == plan[k][2] and plan[j][1] == plan[k][1] - 1), None)
        if before is None:
            towards_turn = (lengths[k] - 1) % 2 if _is_hairpin(plan, k) else 0
            strands[k] = _Strand(z=0.0, parity=(towards_turn + (rng.random() < 0.1)) % 2)
            continue
        previous, (n, m), way, way_before = strands[before], (lengths[before], lengths[k]), plan[k][3], plan[before][3]
        if way == way_before:
            register = int(np.round((m - n) / 2 + previous.z * way / rise + rng.random() - 0.5))
            parity = (previous.parity + register) % 2
            z = previous.z + way * rise * ((m - 1) / 2 - register - (n - 1) / 2)
        else:
            hairpin = {before + 1: n - 1, before - 1: m - 1}.get(k)
            middle = (n + m - 2) / 2 - previous.z * way_before / rise
            register = hairpin if hairpin is not None else int(np.round(middle + rng.random() - 0.5))
            parity = (previous.parity + register + 1) % 2
            z = previous.z + way_before * rise * (register - (m - 1) / 2 - (n - 1) / 2)
        strands[k] = _Strand(z, parity, before, register)
    return strands


def _target(rng, plan, k, length, strand) -> np.ndarray:
    """Ideal coordinates of element k at its place in the plan; of a helix in `ROLLS` turns about its axis."""
    kind, column, layer, way = plan[k]
    spread = np.zeros(3) if strand else 2 * rng.random(3) - 1  # the sheet is exact, helices vary about their place
    by_column, by_layer = TWIST_SHEETS if any(kind == E for kind, *_ in plan) else TWIST_HELICES
    column = column - np.mean([column for _, column, *_ in plan])
    in_layer = _about(0, by_column * column + np.radians(12.0) * spread[0])
    of_layer = _about(1, by_layer * layer * (kind == E or by_layer > 0) + np.radians(12.0) * spread[1])
    rolls = [np.pi * strand.parity] if strand else 2 * np.pi * np.arange(ROLLS) / ROLLS
    atoms = np.stack([ideal_element(kind, length) @ _about(2, roll).T for roll in rolls])
    if way < 0:
        atoms = atoms @ _about(0, np.pi).T
    atoms = (atoms + np.array([0.0, 0.0, strand.z if strand else 1.5 * spread[2]])) @ in_layer.T
    atoms = (atoms + np.array([COLUMN * column, 0.0, 0.0])) @ of_layer.T
    return atoms + np.array([0.0, LAYER * layer, 0.0])


def _loop(rng, plan, strands, targets, k) -> list[str]:
    """What may follow element k: a tight turn where a hairpin's register allows one, else loops of several lengths."""
    shortest = 3
    if _is_hairpin(plan, k):
        shortest, step = 4, plan[k + 1][1] - plan[k][1]
        last = targets[k].shape[1] - 1
        points_across = (last + strands[k].parity) % 2 == (0 if step > 0 else 1)
        if points_across:
            return [pick(rng, ("12", "12", "34"))]
    gap = np.linalg.norm(targets[k + 1][:, 0, slot.CA].mean(0) - targets[k][:, -1, slot.CA].mean(0))
    shortest = max(shortest, int(np.ceil(gap / 3.0)) - 1)
    return [FREE * (shortest + more) for more in range(3)]


def _is_hairpin(plan, k) -> bool:
    """Are elements k and k + 1 neighbouring strands of one sheet?"""
    if not 0 <= k < len(plan) - 1:
        return False
    (kind, column, layer, _), (next_kind, next_column, next_layer, _) = plan[k : k + 2]
    return kind == next_kind == E and layer == next_layer and abs(next_column - column) == 1


def _pairing(plan, lengths, strands):
    """Springs between neighbouring strands: hydrogen bonds, and CA-CA distances of residues side by side."""
    springs = []
    for b, strand in strands.items():
        a = strand.partner
        if a is None:
            continue
        parallel = plan[a][3] == plan[b][3]
        for i in range(lengths[a]):
            j = i + strand.register if parallel else strand.register - i
            across = (i + strands[a].parity) % 2 == 0
            if 0 <= j < lengths[b]:
                distance = PARALLEL if parallel else NARROW if across else WIDE
                springs.append(((a, i, slot.CA), (b, j, slot.CA), distance))
            acceptor, donor = (j - 1, j + 1) if parallel else (j, j)
            if across and 0 <= acceptor < lengths[b]:
                springs.append(((a, i, slot.N), (b, acceptor, slot.O), HYDROGEN_BOND))
            if across and 0 <= donor < lengths[b]:
                springs.append(((a, i, slot.O), (b, donor, slot.N), HYDROGEN_BOND))
    return springs


@cache
def _ideal_strand_rise() -> float:
    atoms = ideal_element(E, 9)
    return float((atoms[7, 1, 2] - atoms[1, 1, 2]) / 6)


@cache
def ideal_element(kind: str, length: int) -> np.ndarray:
    """[length, 5, 3] along +z, centred; in a strand, N-H and C=O of even residues point to +x."""
    phi, psi = (np.full(length, np.radians(angle)) for angle in BASINS[kind])
    atoms = internal.backbone(phi, psi, np.full(length, np.pi))
    window = 4 if kind == H else 2
    smooth = np.stack([atoms[k : length - window + 1 + k, 1] for k in range(window)]).mean(0)
    z = smooth[-1] - smooth[0]
    z /= np.linalg.norm(z)
    carbonyl = ((atoms[:, 4] - atoms[:, 2]) * (-1.0) ** np.arange(length)[:, None]).sum(0)
    x = carbonyl - carbonyl @ z * z
    x /= np.linalg.norm(x)
    return (atoms - smooth.mean(0)) @ np.stack([x, np.cross(z, x), z], axis=-1)


def _about(axis: int, angle: float) -> np.ndarray:
    """Rotation matrix about a coordinate axis."""
    matrix, (i, j) = np.eye(3), ((1, 2), (2, 0), (0, 1))[axis]
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i] = np.sin(angle)
    matrix[i, j] = -matrix[j, i]
    return matrix
