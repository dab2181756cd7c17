import numpy as np
import pytest

from app.chem.residues import AATYPES
from app.evaluation.ramachandran import outside

ALANINE, GLYCINE, PROLINE = (AATYPES.index(letter) for letter in "AGP")


def out(phi: float, psi: float, aatype: int = ALANINE) -> bool:
    return bool(outside(np.radians([phi]), np.radians([psi]), np.array([aatype]))[0])


@pytest.mark.parametrize(
    ("phi", "psi"),
    [(-57.8, -47), (-49, -26), (-120, 113), (-139, 135), (-75, 150), (-75, -175), (57, 47), (-79, 68), (-80, 0)],
)
def test_what_textbooks_have_is_inside(phi, psi):
    """Alpha and 3-10 helix, parallel and antiparallel strands, polyproline II (and beyond 180), left-handed helix,
    gamma turn, the second residue of a type I turn."""
    assert not out(phi, psi)
    assert not out(phi, psi, GLYCINE)


@pytest.mark.parametrize(("phi", "psi"), [(0, 0), (120, -60), (60, 180), (-90, -120), (150, 20), (0, 180)])
def test_what_atoms_forbid_is_outside(phi, psi):
    assert out(phi, psi)


def test_glycine_may_be_of_either_hand_and_proline_is_stiff():
    for phi, psi in ((57.8, 47), (120, -113), (85, 0), (180, 180), (-170, -170)):
        assert not out(phi, psi, GLYCINE)
    assert out(0, 90, GLYCINE)
    assert not out(-65, 145, PROLINE) and not out(-60, -30, PROLINE)
    assert out(-140, 135, PROLINE) and out(57, 47, PROLINE)


def test_residues_without_both_angles_are_not_outside():
    assert (
        outside(np.array([np.nan, 0.0]), np.array([0.0, np.nan]), np.array([ALANINE, ALANINE])).tolist() == [False] * 2
    )


def test_the_regions_cover_as_much_as_is_said():
    """docs/metrics.md."""
    degrees = np.radians(np.arange(-179.5, 180, 3))
    phi, psi = (x.ravel() for x in np.meshgrid(degrees, degrees))
    for aatype, share in ((ALANINE, 0.30), (GLYCINE, 0.57), (PROLINE, 0.14)):
        assert 1 - outside(phi, psi, np.full(len(phi), aatype)).mean() == pytest.approx(share, abs=0.01)
