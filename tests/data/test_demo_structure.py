"""Demo chains look like protein: bonds, torsions, helices, strands, packing."""

from itertools import pairwise

import numpy as np
import pytest

from app.chem import atoms as slot
from app.chem import backbone_geometry as ideal
from app.data import demo
from app.data.demo_fold import BASINS
from app.geometry import internal
from tests.data.made_demo import BACKBONES, CHAINS, pooled, stretches, with_all_cb


def turn(start, end):
    """Degrees from one angle to another, the shorter way round."""
    return np.abs((end - start + 180) % 360 - 180)


def angle(a, b, c):
    u, v = a - b, c - b
    return np.degrees(np.arccos((u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)))


def test_bonds_and_angles_are_ideal():
    for backbone in map(with_all_cb, BACKBONES):
        n, ca, c, cb, o = np.moveaxis(backbone, 1, 0)
        for a, b, length in (
            (n, ca, ideal.N_CA),
            (ca, c, ideal.CA_C),
            (c, o, ideal.C_O),
            (ca, cb, ideal.CA_CB),
            (c[:-1], n[1:], ideal.C_N),
        ):
            np.testing.assert_allclose(np.linalg.norm(a - b, axis=-1), length, atol=1e-3)
        for a, b, d, bend in (
            (n, ca, c, ideal.N_CA_C),
            (ca, c, o, ideal.CA_C_O),
            (c, ca, cb, ideal.C_CA_CB),
            (ca[:-1], c[:-1], n[1:], ideal.CA_C_N),
            (c[:-1], n[1:], ca[1:], ideal.C_N_CA),
        ):
            np.testing.assert_allclose(angle(a, b, d), np.degrees(bend), atol=0.05)


def test_peptides_are_trans():
    for backbone in BACKBONES:
        ca = backbone[:, slot.CA]
        np.testing.assert_allclose(np.linalg.norm(ca[1:] - ca[:-1], axis=-1), 3.80, atol=0.05)
        omega = np.degrees(internal.torsions(backbone)[2][:-1])
        assert (np.abs(omega) > 175).all()


def test_residues_are_l():
    for (protein, _), backbone in zip(CHAINS, BACKBONES, strict=True):
        n, ca, c, cb, _ = np.moveaxis(backbone, 1, 0)
        handedness = (np.cross(n - ca, c - ca) * (cb - ca)).sum(-1)
        assert (handedness[protein.atom_mask[:, slot.CB]] > 1.0).all()


def test_torsions_lie_in_their_basins():
    for (_, states), backbone in zip(CHAINS, BACKBONES, strict=True):
        phi, psi, _ = np.degrees(internal.torsions(backbone))
        for k in range(1, len(states) - 1):
            own = [BASINS[states[k]]] if states[k] in "HE" else [BASINS[c] for c in "ABPL1234"]
            most = {"H": 8.1, "E": 30.1, "L": 25.1}[states[k]]
            assert min(max(turn(phi[k], basin[0]), turn(psi[k], basin[1])) for basin in own) <= most


def test_nothing_clashes():
    for backbone in map(with_all_cb, BACKBONES):
        ca = backbone[:, slot.CA]
        i, j = np.triu_indices(len(ca), 3)
        assert np.linalg.norm(ca[i] - ca[j], axis=-1).min() >= 3.6
        assert demo.overlap(backbone, apart=3).max() < demo.OVERLAP[0] + 1e-3
        assert demo.overlap(backbone, apart=2).max() < demo.OVERLAP[1] + 1e-3


def test_chains_are_compact():
    for backbone in BACKBONES:
        ca = backbone[:, slot.CA]
        radius = np.sqrt(((ca - ca.mean(0)) ** 2).sum(-1).mean())
        assert 0.85 <= radius / (2.2 * len(ca) ** 0.38) <= 1.25


def test_helices_are_helices():
    bonds, rises = [], []
    for (_, states), backbone in zip(CHAINS, BACKBONES, strict=True):
        for state, first, end in stretches(states):
            if state == "H":
                bonds.append(
                    np.linalg.norm(backbone[first : end - 4, slot.O] - backbone[first + 4 : end, slot.N], axis=-1)
                )
                axis = np.stack([backbone[first + k : end - 3 + k, slot.CA] for k in range(4)]).mean(0)
                rises.append(np.linalg.norm(axis[-1] - axis[0]) / (len(axis) - 1))
    assert np.median(pooled(bonds)) == pytest.approx(2.95, abs=0.15)
    assert (pooled(bonds) < 3.5).mean() > 0.95
    assert np.mean(rises) == pytest.approx(1.5, abs=0.05)


def test_strands_pair():
    """Every strand has a partner 4.5 to 5.5 angstrom away, and hydrogen bonds close hairpins."""
    for (protein, states), backbone in zip(CHAINS, BACKBONES, strict=True):
        strands = [(first, end) for state, first, end in stretches(states) if state == "E"]
        bonded = np.linalg.norm(backbone[:, None, slot.N] - backbone[None, :, slot.O], axis=-1) < 3.5
        between = np.linalg.norm(backbone[:, None, slot.CA] - backbone[None, :, slot.CA], axis=-1)
        for a in strands:
            others = [b for b in strands if b != a]
            assert any(4.2 < np.median(between[slice(*a), slice(*b)].min(1)) < 5.8 for b in others), protein.name
            assert sum(bonded[slice(*a), slice(*b)].sum() + bonded[slice(*b), slice(*a)].sum() for b in others) >= 2
        for a, b in pairwise(strands):
            if b[0] - a[1] == 2:  # a two-residue turn: the residues around it bond both ways
                assert bonded[a[1] - 1, b[0]]
                assert bonded[b[0], a[1] - 1]


def test_helices_pack():
    """The axes of helices that follow each other come within 12 angstrom, mostly 8 to 10."""
    nearest = []
    for protein, states in CHAINS:
        if "bundle" not in protein.name and "helix_hairpin" not in protein.name:
            continue
        ca = protein.atom37[:, slot.CA]
        axes = [
            np.stack([ca[first + k : end - 3 + k] for k in range(4)]).mean(0)
            for state, first, end in stretches(states)
            if state == "H"
        ]
        for one, other in pairwise(axes):
            nearest.append(np.linalg.norm(one[:, None] - other[None], axis=-1).min())
    assert min(nearest) >= 6.5
    assert max(nearest) <= 12
    assert 8 <= np.median(nearest) <= 10


def test_crossovers_between_parallel_strands_are_right_handed():
    crossings = 0
    for protein, states in CHAINS:
        ca = protein.atom37[:, slot.CA]
        parts = [part for part in stretches(states) if part[0] != "L"]
        for one, helix, other in zip(parts, parts[1:], parts[2:], strict=False):
            if one[0] + helix[0] + other[0] != "EHE":
                continue
            place = {part: ca[part[1] : part[2]].mean(0) for part in (one, helix, other)}
            along = ca[one[2] - 1] - ca[one[1]]
            if (along * (ca[other[2] - 1] - ca[other[1]])).sum() < 0:
                continue  # an antiparallel pair has no handedness of this kind
            out = place[helix] - (place[one] + place[other]) / 2
            crossings += 1
            assert np.cross(along, out) @ (place[other] - place[one]) > 0, protein.name
    assert crossings > 50
