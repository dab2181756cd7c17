"""Dihedral angles and chains from torsions."""

import numpy as np
import pytest

from app.chem import backbone
from app.chem import backbone_geometry as ideal
from app.geometry import internal


def angle(a, b, c):
    u, v = a - b, c - b
    return np.arccos((u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1))


def uniform_chain(phi, psi, length=30, omega=180.0):
    return internal.backbone(*(np.full(length, np.radians(value)) for value in (phi, psi, omega)))


def test_dihedral_has_the_iupac_sign():
    a, b, c = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    # Looking along the middle bond, from b to c, the far end is turned clockwise by 30 degrees.
    d = c + np.array([np.cos(np.pi / 6), np.sin(np.pi / 6), 0.0])
    assert np.degrees(internal.dihedral(a, b, c, d)) == pytest.approx(30)
    assert np.degrees(internal.dihedral(a, b, c, d * [1, -1, 1])) == pytest.approx(-30)


def test_placed_atoms_have_the_internal_coordinates_asked_for():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 100, 3)) * 3
    length, bend, torsion = rng.uniform(1, 2, 100), rng.uniform(0.5, 2.5, 100), rng.uniform(-np.pi, np.pi, 100)
    d = internal.place(a, b, c, length, bend, torsion)
    np.testing.assert_allclose(np.linalg.norm(d - c, axis=-1), length)
    np.testing.assert_allclose(angle(b, c, d), bend)
    np.testing.assert_allclose(internal.dihedral(a, b, c, d), torsion)


def test_a_chain_has_its_torsions_and_ideal_bonds():
    rng = np.random.default_rng(0)
    wanted = rng.uniform(-np.pi, np.pi, (3, 4, 50))
    chain = internal.backbone(*wanted)
    assert chain.shape == (4, 50, 5, 3)
    phi, psi, omega = internal.torsions(chain)
    np.testing.assert_allclose(phi[:, 1:], wanted[0][:, 1:])
    np.testing.assert_allclose(psi[:, :-1], wanted[1][:, :-1])
    np.testing.assert_allclose(omega[:, :-1], wanted[2][:, :-1])
    assert np.isnan(phi[:, 0]).all()
    assert np.isnan(psi[:, -1]).all()
    n, ca, c, cb, o = np.moveaxis(chain, -2, 0)
    next_n, next_ca = n[:, 1:], ca[:, 1:]
    for start, end, length in (
        (n, ca, ideal.N_CA),
        (ca, c, ideal.CA_C),
        (c, o, ideal.C_O),
        (ca, cb, ideal.CA_CB),
        (c[:, :-1], next_n, ideal.C_N),
    ):
        np.testing.assert_allclose(np.linalg.norm(end - start, axis=-1), length)
    for a, b, d, bend in (
        (n, ca, c, ideal.N_CA_C),
        (ca, c, o, ideal.CA_C_O),
        (c, ca, cb, ideal.C_CA_CB),
        (ca[:, :-1], c[:, :-1], next_n, ideal.CA_C_N),
        (c[:, :-1], next_n, next_ca, ideal.C_N_CA),
    ):
        np.testing.assert_allclose(angle(a, b, d), bend)
    np.testing.assert_allclose(np.degrees(angle(n, ca, cb)), 110.5, atol=0.3)
    out_of_plane = np.abs(internal.dihedral(next_n, ca[:, :-1], c[:, :-1], o[:, :-1])) - np.pi
    np.testing.assert_allclose(out_of_plane, 0, atol=1e-6)


def test_chains_of_the_ideal_residue_agree_with_the_frames_of_the_rest_of_the_house():
    """Chirality above all: CB on the side where an L residue has it."""
    atoms = internal.local_atoms(np.zeros(1))[0]
    expected = np.array([backbone.IDEAL_N, backbone.IDEAL_CA, backbone.IDEAL_C, backbone.IDEAL_CB])
    np.testing.assert_allclose(atoms[:4], expected, atol=0.02)


def test_ideal_helix_and_strand():
    helix = uniform_chain(-63, -43, omega=179)
    rise = np.linalg.norm(helix[18:22, 1].mean(0) - helix[4:8, 1].mean(0)) / 14
    assert rise == pytest.approx(1.5, abs=0.05)
    assert np.linalg.norm(helix[10, 4] - helix[14, 0]) == pytest.approx(2.9, abs=0.15)
    ca = helix[:, 1]
    assert (internal.dihedral(ca[:-3], ca[1:-2], ca[2:-1], ca[3:]) > 0).all(), "a right-handed helix"
    strand = uniform_chain(-120, 130)
    assert np.linalg.norm(strand[20, 1] - strand[10, 1]) / 10 == pytest.approx(3.35, abs=0.1)
    assert np.linalg.norm(strand[1, 1] - strand[0, 1]) == pytest.approx(backbone.CA_CA_TRANS, abs=0.01)


def test_residue_frames_are_right_handed():
    frames = internal.residue_frames(*np.moveaxis(uniform_chain(-63, -43)[:, :3], 1, 0))
    np.testing.assert_allclose(np.linalg.det(frames), 1.0)
    np.testing.assert_allclose(
        np.swapaxes(frames, -1, -2) @ frames, np.broadcast_to(np.eye(3), frames.shape), atol=1e-12
    )
