"""What is read of structures, and how it travels."""

import base64

import numpy as np
import pytest
from biotite.structure import dihedral_backbone
from biotite.structure.io.pdb import PDBFile

from app.chem import backbone_geometry as ideal
from app.errors import UserError
from app.report.coordinates import ABSENT, LARGEST, STEP, packed, packed_bytes
from app.report.geometry import measured
from app.report.models import C, N, read_any, read_own
from app.structure.write import write_pdb
from tests.report import made_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_run.run(tmp_path_factory.mktemp("run"))


def unpacked(entry, *shape):
    numbers = np.frombuffer(base64.b64decode(entry["xyz"]), "<i2").astype(float)
    return np.where(numbers == ABSENT, np.nan, numbers * entry["step"]).reshape(*shape, 3)


@pytest.mark.parametrize("name", made_run.DESIGNS)
def test_the_quick_reader_and_the_thorough_one_agree(folder, name):
    path = folder / "structures" / f"{name}.pdb"
    (quick,), thorough = read_own(path), read_any(path)
    np.testing.assert_array_equal(quick.backbone, thorough.backbone)
    np.testing.assert_allclose(quick.b_factors, thorough.b_factors, atol=1e-6)
    assert (quick.sequence, quick.chains, quick.numbers) == (thorough.sequence, thorough.chains, thorough.numbers)


def test_chosen_models_of_a_trajectory(folder):
    path = folder / "trajectories" / "len24_0_path.pdb"
    first, last = read_own(path, lambda models: [0, models - 1])
    assert first.sequence == "X" * 24 and "X" not in last.sequence
    whole = PDBFile.read(path)
    for model, number in ((first, 1), (last, made_run.STEPS + 1)):
        atoms = whole.get_structure(model=number)
        np.testing.assert_allclose(model.backbone[:, N], atoms[atoms.atom_name == "N"].coord)


def test_insertion_codes_and_absent_atoms(tmp_path):
    line = "ATOM      1  CA  GLY A  52A      1.000   2.000   3.000  1.00 50.00           C  \n"
    (tmp_path / "one.pdb").write_text(line + line.replace("52A", "52B").replace(" CA ", " C  "))
    (model,) = read_own(tmp_path / "one.pdb")
    assert model.numbers == ["52A", "52B"] and model.sequence == "GG"
    assert np.isnan(model.backbone[0, N]).all() and model.backbone[1, C].tolist() == [1, 2, 3]


@pytest.mark.parametrize("text", ["", "not a structure", "ATOM  " + "x" * 74, "ATOM      1  CA", "MODEL 1\nENDMDL\n"])
def test_damaged_files_are_refused(tmp_path, text):
    (tmp_path / "bad.pdb").write_text(text)
    with pytest.raises(UserError, match=r"bad\.pdb"):
        read_own(tmp_path / "bad.pdb")


def test_coordinates_come_back():
    points = np.random.default_rng(0).normal(scale=50, size=(7, 4, 3))
    points[2, 1] = np.nan
    entry = packed(points)
    assert entry["step"] == STEP
    np.testing.assert_allclose(unpacked(entry, 7, 4), points, atol=STEP / 2 + 1e-9)


def test_large_structures_have_coarser_steps():
    points = np.array([[-9999.0, 0.0, 5.0]])
    entry = packed(points)
    assert entry["step"] == pytest.approx(9999 / LARGEST)
    np.testing.assert_allclose(unpacked(entry, 1), points, atol=entry["step"] / 2 + 1e-9)


def test_nothing_there_is_packed_too():
    assert np.isnan(unpacked(packed(np.full((2, 3), np.nan)), 2)).all()
    assert base64.b64decode(packed_bytes(np.array([0, 99.6, np.nan, 300]))) == bytes([0, 100, 0, 255])


def test_geometry_of_an_ideal_helix(folder):
    (model,) = read_own(folder / "structures" / "len40_0.pdb")
    found = measured([model])
    assert len(found.c_n) == len(found.ca_ca) == 39
    np.testing.assert_allclose(found.c_n, ideal.C_N, atol=2e-3)  # a PDB file has three digits
    np.testing.assert_allclose(found.ca_c_n, np.degrees(ideal.CA_C_N), atol=0.2)
    np.testing.assert_allclose(found.c_n_ca, np.degrees(ideal.C_N_CA), atol=0.2)
    assert len(found.phi_psi) == 38
    np.testing.assert_allclose(found.phi_psi, [made_run.HELIX] * 38, atol=0.3)


def test_torsions_are_those_of_biotite(folder):
    path = folder / "structures" / "len24_0.pdb"
    phi, psi, _ = dihedral_backbone(PDBFile.read(path).get_structure(model=1))
    expected = np.degrees(np.stack([phi, psi], axis=-1))
    np.testing.assert_allclose(measured(read_own(path)).phi_psi, expected[1:-1], atol=0.05)


def test_chains_and_gaps_are_no_bonds(folder, tmp_path):
    (two,) = read_own(folder / "structures" / "len20+12_0.pdb")
    assert len(measured([two]).c_n) == 19 + 11
    atom37, number = made_run.design([10]), np.array([1, 2, 3, 4, 5, 8, 9, 10, 11, 12])
    write_pdb(tmp_path / "gap.pdb", atom37, np.zeros(10, int), np.ones(10, int), number)
    assert len(measured(read_own(tmp_path / "gap.pdb")).c_n) == 8
    assert len(measured([two, two]).c_n) == 60
    assert len(measured([]).c_n) == 0
