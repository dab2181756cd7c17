"""All that is measured of one design: made ones, real ones, and values by other programs."""

import dataclasses

import biotite.structure as struc
import numpy as np
import pytest

from app.chem.residues import UNKNOWN
from app.evaluation.columns import DESIGN, SKIPPED
from app.evaluation.design import measures
from app.geometry import internal
from app.structure.read import read_structure
from app.types import Protein

BEST = {"1aki": 129, "1o1z": 226, "1pwc": 345, "4i39": 125}
"""Entries of 1.6 angstrom or better, and their residues."""


def protein(backbone: np.ndarray, chains=None, numbers=None, aatype=0) -> Protein:
    """backbone: [N, 5, 3], N, CA, C, CB, O."""
    length = len(backbone)
    atom37, mask = np.zeros((length, 37, 3), np.float32), np.zeros((length, 37), bool)
    atom37[:, :5], mask[:, :5] = backbone, True
    chains = np.ones(length, int) if chains is None else np.asarray(chains)
    return Protein(
        name="made",
        atom37=atom37,
        atom_mask=mask,
        aatype=np.broadcast_to(aatype, length).copy(),
        res_idx=np.arange(1, length + 1) if numbers is None else np.asarray(numbers),
        chain_idx=chains,
        chain_ids=tuple("ABCD"[: chains.max()]),
        b_factors=np.zeros(length, np.float32),
    )


def built(*torsions: float, length: int = 20) -> np.ndarray:
    return internal.backbone(*(np.full(length, np.radians(angle)) for angle in torsions))


def helix(length: int = 20) -> np.ndarray:
    return built(-57.8, -47.0, 180.0, length=length)


def entry(shared, name: str) -> Protein:
    (path,) = (shared / "structures").glob(f"{name}.*")
    return read_structure(path)


def test_an_ideal_helix_has_nothing_wrong_with_it():
    found = measures(protein(helix()))
    assert list(found) == [column for column in found if column in DESIGN] and found.keys() == set(DESIGN)
    for column in ("bond_outliers", "angle_outliers", "clashes", "d_residues", "left_handed_helix", "chain_breaks"):
        assert found[column] == 0, column
    for column in ("ramachandran_outliers", "cis_peptides", "twisted_peptides", "gaps", "strand", "strands"):
        assert found[column] == 0, column
    assert found["bond_deviation"] < 1e-4 and found["angle_deviation"] < 0.01
    assert found["ca_ca_valid"] == 1 and found["ca_ca_deviation"] == pytest.approx(0, abs=0.01)
    assert found["helix"] == pytest.approx(18 / 20) and found["coil"] == pytest.approx(2 / 20)
    assert found["helices"] == 1 and found["topology"] == "H"
    assert found["fraction_A"] == found["most_common_share"] == 1 and found["fraction_G"] == 0


def test_a_mirror_image_is_found_out():
    found = measures(protein(helix() * [1, 1, -1]))
    assert found["d_residues"] == found["left_handed_helix"] == 1
    assert measures(protein(helix() * [1, 1, -1], aatype=14))["ramachandran_outliers"] == 1


def test_torsions_of_peptide_bonds():
    assert measures(protein(built(-120, 120, 10)))["cis_peptides"] == 1
    twisted = measures(protein(built(-120, 120, 100)))
    assert twisted["twisted_peptides"] == 1 and twisted["cis_peptides"] == 0


def test_a_stretched_bond_and_a_bent_angle():
    stretched = helix()
    stretched[10:] += 0.2 * (stretched[10, 0] - stretched[9, 2]) / np.linalg.norm(stretched[10, 0] - stretched[9, 2])
    found = measures(protein(stretched))
    assert found["bond_outliers"] == pytest.approx(1 / 59, abs=1e-6)
    assert found["bond_deviation"] == pytest.approx(0.2 / 59, abs=1e-4)
    assert found["chain_breaks"] == 0


def test_breaks_gaps_and_ends_of_chains_are_told_apart():
    apart = helix()
    apart[10:] += 5
    assert measures(protein(apart))["chain_breaks"] == 1
    jump = np.append(np.arange(1, 11), np.arange(15, 25))
    found = measures(protein(apart, numbers=jump))
    assert (found["chain_breaks"], found["gaps"]) == (0, 1)
    found = measures(protein(apart, chains=np.repeat([1, 2], 10)))
    assert (found["chain_breaks"], found["gaps"]) == (0, 0)
    assert found["topology"] == "H/H" and found["bond_outliers"] == 0
    found = measures(protein(helix(), numbers=jump))
    assert (found["chain_breaks"], found["gaps"]) == (0, 0), "what is bonded is, whatever its number"


def test_what_there_is_nothing_to_judge_of_is_skipped():
    found = measures(protein(helix(1), aatype=UNKNOWN))
    assert found["ca_ca_valid"] == SKIPPED + "no residue has a next one"
    assert found["ramachandran_outliers"].startswith(SKIPPED)
    assert found["composition_divergence"] == SKIPPED + "no sequence"
    assert found["bond_outliers"] == 0, "a residue has bonds of its own"
    bare = protein(helix())
    bare = dataclasses.replace(bare, atom_mask=bare.atom_mask & (np.arange(37) != 3))
    assert measures(bare)["d_residues"] == SKIPPED + "no CB"


@pytest.mark.parametrize("name", BEST)
def test_the_best_real_structures_have_next_to_nothing_wrong(shared, name):
    read = entry(shared, name)
    found = measures(read)
    assert len(read) == BEST[name]
    assert found["bond_outliers"] < 0.002 and found["bond_deviation"] < 0.012
    assert found["angle_outliers"] < 0.004 and found["angle_deviation"] < 2
    assert found["ca_ca_valid"] > 0.995 and found["ca_ca_deviation"] < 0.03
    assert found["ramachandran_outliers"] < 0.01 and found["cis_peptides"] < 0.005
    for column in ("clashes", "d_residues", "chain_breaks", "gaps", "twisted_peptides"):
        assert found[column] == 0, column
    assert found["left_handed_helix"] < 0.05
    assert 0.9 < found["compactness"] < 1.05
    assert found["composition_divergence"] < 0.07


def test_values_are_those_of_biotite(shared):
    """Of a structure without breaks: distances to 1e-4 angstrom, torsions to 0.01 degrees."""
    read = entry(shared, "4i39")
    found = measures(read)
    array = struc.AtomArray(3 * len(read))
    array.coord = read.atom37[:, :3].reshape(-1, 3)
    array.atom_name = np.tile(["N", "CA", "C"], len(read))
    array.res_id, array.chain_id[:], array.res_name[:] = np.repeat(np.arange(len(read)), 3), "A", "ALA"
    ca = array[array.atom_name == "CA"]
    steps = struc.distance(ca[:-1], ca[1:])
    assert found["ca_ca_deviation"] == pytest.approx(np.abs(steps - 3.80).mean(), abs=1e-4)
    ca.element[:] = "C"
    assert found["radius_of_gyration"] == pytest.approx(struc.gyration_radius(ca), abs=1e-3)
    phi, psi, omega = internal.torsions(read.atom37[:, :3].astype(float))
    for ours, theirs in zip((phi, psi, omega), struc.dihedral_backbone(array), strict=True):
        np.testing.assert_allclose(np.degrees(ours), np.degrees(theirs), atol=0.01)
    cis = np.abs(np.degrees(struc.dihedral_backbone(array)[2][:-1])) < 30
    assert found["cis_peptides"] == pytest.approx(cis.mean(), abs=1e-6)


def test_an_old_structure_is_worse_than_a_new_one(shared):
    old, new = measures(entry(shared, "1tim")), measures(entry(shared, "1o1z"))
    for column in ("ramachandran_outliers", "angle_outliers", "angle_deviation", "clashes"):
        assert old[column] > new[column], column
    assert old["strands"] == 16 and old["topology"].count("/") == 1
