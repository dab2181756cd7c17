import numpy as np
import pytest

from app.chem.residues import AATYPES, UNKNOWN
from app.evaluation.compactness import compactness, expected_radius, radius_of_gyration
from app.evaluation.composition import SWISS_PROT, distance_to_natural, shares


def test_shares_are_of_known_residues():
    found = shares(np.array([0, 0, 0, 19, UNKNOWN]))
    assert found[0] == 0.75 and found[19] == 0.25 and found.sum() == 1
    assert np.isnan(shares(np.array([UNKNOWN]))).all()


def test_the_distance_is_that_of_its_formula():
    natural = np.array([SWISS_PROT[letter] for letter in AATYPES])
    assert natural.sum() == pytest.approx(100, abs=0.2)
    natural /= natural.sum()
    assert distance_to_natural(natural) == pytest.approx(0, abs=1e-9)
    uniform = np.full(20, 0.05)
    middle = (uniform + natural) / 2
    entropy = [-(p * np.log2(p)).sum() for p in (middle, uniform, natural)]
    assert distance_to_natural(uniform) == pytest.approx(entropy[0] - (entropy[1] + entropy[2]) / 2)
    alanine = np.eye(20)[AATYPES.index("A")]
    assert 0.7 < distance_to_natural(alanine) < 1


def test_radius_of_gyration_by_hand():
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-2, 2) for z in (-3, 3)], dtype=float)
    assert radius_of_gyration(corners + 50) == pytest.approx(14**0.5)
    assert expected_radius(100) == pytest.approx(2.2 * 100**0.38)


def test_each_chain_is_as_compact_as_it_is_alone():
    random = np.random.default_rng(0)
    one, other = random.normal(0, 8, (60, 3)), random.normal(0, 4, (30, 3)) + 500
    chains = np.repeat([1, 2], [60, 30])
    expected = (60 * compactness(one, np.ones(60)) + 30 * compactness(other, np.ones(30))) / 90
    assert compactness(np.concatenate([one, other]), chains) == pytest.approx(expected)
