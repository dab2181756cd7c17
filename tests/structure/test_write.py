"""Structures and sequences written, and read back."""

import dataclasses

import numpy as np
import pytest
import torch
from biotite.sequence.io.fasta import FastaFile
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import CIFFile, get_structure

from app.chem.residues import AATYPES_WITH_X
from app.errors import UserError
from app.structure.read import read_structure
from app.structure.write import to_pdb, write_fasta, write_mmcif, write_pdb
from app.types import Protein


def backbone(length, models=None, seed=0):
    """Random N, CA, C, CB and O in atom37 layout, the rest 0."""
    shape = (length,) if models is None else (models, length)
    atom37 = np.zeros((*shape, 37, 3), dtype=np.float32)
    atom37[..., :5, :] = np.random.default_rng(seed).normal(scale=20, size=(*shape, 5, 3)).round(3)
    return atom37


def numbers(length):
    return np.ones(length, dtype=int), np.arange(1, length + 1)


def protein(length=21) -> Protein:
    aatype = np.arange(length) % 21
    atom37 = backbone(length)
    atom37[aatype == 7, 3] = 0
    chain_idx = np.where(np.arange(length) < 10, 1, 2)
    return Protein(
        name="written",
        atom37=atom37,
        atom_mask=(atom37 != 0).any(-1),
        aatype=aatype,
        res_idx=np.arange(length) * 2 - 3,
        chain_idx=chain_idx,
        chain_ids=("H", "a"),
        b_factors=np.linspace(0, 99, length).round(2).astype(np.float32),
    )


def test_what_is_written_is_read_back(tmp_path):
    written = protein()
    to_pdb(written, tmp_path / "written.pdb")
    read = read_structure(tmp_path / "written.pdb")
    for field in dataclasses.fields(Protein):
        value, expected = getattr(read, field.name), getattr(written, field.name)
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(value, expected, atol=1e-3, err_msg=field.name)
        else:
            assert value == expected, field.name


def test_model_output_writes_backbone_and_cb_in_order_but_no_cb_on_glycine(tmp_path):
    atom37 = torch.from_numpy(backbone(3)).requires_grad_()
    chain_idx, res_idx = (torch.from_numpy(values) for values in numbers(3))
    write_pdb(tmp_path / "a.pdb", atom37, torch.tensor([0, 7, 20]), chain_idx, res_idx)
    array = PDBFile.read(tmp_path / "a.pdb").get_structure(model=1)
    assert array.atom_name.tolist() == ["N", "CA", "C", "O", "CB", "N", "CA", "C", "O", "N", "CA", "C", "O", "CB"]
    assert list(dict.fromkeys(array.res_name.tolist())) == ["ALA", "GLY", "UNK"]
    assert set(array.element.tolist()) == {"N", "C", "O"} and set(array.chain_id.tolist()) == {"A"}
    assert (tmp_path / "a.pdb").read_text().endswith("END\n")


def test_ca_on_the_origin_is_written(tmp_path):
    atom37 = backbone(1)
    atom37[0, 1] = 0
    write_pdb(tmp_path / "a.pdb", atom37, [0], *numbers(1))
    assert PDBFile.read(tmp_path / "a.pdb").get_structure(model=1).array_length() == 5
    mask = np.zeros((1, 37), dtype=bool)
    mask[0, :3] = True
    write_pdb(tmp_path / "a.pdb", atom37, [0], *numbers(1), atom_mask=mask)
    assert PDBFile.read(tmp_path / "a.pdb").get_structure(model=1).array_length() == 3


def test_trajectory_has_a_model_a_step_each_with_its_own_sequence(tmp_path):
    atom37, aatype = backbone(4, models=3), np.array([[20, 20, 20, 20], [0, 7, 20, 1], [0, 7, 19, 1]])
    write_pdb(tmp_path / "t.pdb", atom37, aatype, *numbers(4), b_factors=np.full((3, 4), 5.0))
    text = (tmp_path / "t.pdb").read_text()
    assert text.count("MODEL ") == text.count("ENDMDL") == 3
    for model in range(3):
        read = read_structure(tmp_path / "t.pdb", model=model + 1)
        assert read.aatype.tolist() == aatype[model].tolist()
        np.testing.assert_allclose(read.atom37[:, 1], atom37[model, :, 1], atol=1e-3)
        assert (read.b_factors == 5).all()


def test_one_sequence_serves_a_whole_trajectory(tmp_path):
    write_pdb(tmp_path / "t.pdb", backbone(2, models=2), [0, 1], *numbers(2))
    assert read_structure(tmp_path / "t.pdb", model=2).aatype.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 10_000.0}, "do not fit the PDB format"),
        ({"value": -1000.0}, "do not fit the PDB format"),
        ({"value": 1e30}, "do not fit the PDB format"),
        ({"value": np.nan}, "not finite"),
        ({"value": np.inf}, "not finite"),
        ({"res_idx": 10_000}, "residue numbers"),
        ({"chain_idx": 63}, "chain indices"),
        ({"chain_idx": 0}, "chain indices"),
    ],
)
def test_what_the_format_cannot_hold_is_an_error_and_leaves_the_old_file(tmp_path, change, message):
    path = tmp_path / "a.pdb"
    path.write_text("old")
    atom37, (chain_idx, res_idx) = backbone(2), numbers(2)
    atom37[1, 1, 0] = change.get("value", 1.0)
    chain_idx[1] = change.get("chain_idx", 1)
    res_idx[1] = change.get("res_idx", 2)
    with pytest.raises(UserError, match=message) as caught:
        write_pdb(path, atom37, [0, 0], chain_idx, res_idx)
    assert str(path) in str(caught.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_extremes_of_the_columns_and_huge_b_factors(tmp_path):
    atom37 = backbone(1)
    atom37[0, 0], atom37[0, 2] = (-999.999, 0, 0), (9999.0, 0, 0)
    write_pdb(tmp_path / "a.pdb", atom37, [0], *numbers(1), b_factors=np.array([1e6]))
    array = PDBFile.read(tmp_path / "a.pdb").get_structure(model=1, extra_fields=["b_factor"])
    assert array.coord[0, 0] == pytest.approx(-999.999) and array.b_factor[0] == pytest.approx(999.99)


def test_nothing_to_write(tmp_path):
    with pytest.raises(UserError, match="no atom"):
        write_pdb(tmp_path / "a.pdb", np.zeros((2, 37, 3)), [0, 0], *numbers(2))
    assert not list(tmp_path.iterdir())


def test_all_residue_names(tmp_path):
    write_pdb(tmp_path / "a.pdb", backbone(21), np.arange(21), *numbers(21))
    read = read_structure(tmp_path / "a.pdb")
    assert "".join(AATYPES_WITH_X[i] for i in read.aatype) == AATYPES_WITH_X


def test_fasta(tmp_path):
    records = [("one length=3", "ACD"), ("two", "W" * 200), ("two", "X")]
    write_fasta(tmp_path / "new" / "s.fasta", records)
    assert list(FastaFile.read_iter(tmp_path / "new" / "s.fasta")) == records


def test_a_ter_ends_each_chain_and_has_a_number(tmp_path):
    write_pdb(
        tmp_path / "a.pdb", backbone(3), [0, 7, 1], [1, 1, 2], [1, 2, 2], chain_ids=("H", "L"), ins_codes=["", "A", ""]
    )
    lines = (tmp_path / "a.pdb").read_text().splitlines()
    assert [line[:27] for line in lines if line[:3] == "TER"] == [
        "TER      10      GLY H   2A",
        "TER      16      ARG L   2 ",
    ]
    assert [int(line[6:11]) for line in lines[:-1]] == list(range(1, 17))
    assert [line[:3] for line in lines[-2:]] == ["TER", "END"]
    write_pdb(tmp_path / "t.pdb", backbone(2, models=2), [0, 1], [1, 2], [1, 1])
    assert (tmp_path / "t.pdb").read_text().count("\nTER ") == 4


# mmCIF, and insertion codes in both formats


def written_in_both(folder, **changes):
    """A protein with insertion codes and numbers below zero, by biotite from both files."""
    atom37 = backbone(9) + np.float32(0.0004)
    what = {
        "atom37": atom37,
        "aatype": np.arange(9),
        "chain_idx": np.repeat([1, 2], [4, 5]),
        "res_idx": np.array([-2, -1, 0, 1, 52, 52, 52, 53, 60]),
        "b_factors": np.linspace(0, 100, 9) + 0.004,
        "atom_mask": np.arange(37) < 5,
        "chain_ids": ("H", "l"),
        "ins_codes": np.array(["", "", "", "", "", "A", "B", "", ""]),
    } | changes
    write_pdb(folder / "a.pdb", **what)
    write_mmcif(folder / "a.cif", **what)
    fields = ["b_factor", "occupancy"]
    pdb = PDBFile.read(folder / "a.pdb").get_structure(model=1, extra_fields=fields)
    return pdb, get_structure(CIFFile.read(folder / "a.cif"), model=1, extra_fields=fields)


def test_mmcif_says_what_the_pdb_file_says(tmp_path):
    pdb, cif = written_in_both(tmp_path)
    names = ["chain_id", "res_id", "ins_code", "res_name", "atom_name", "element", "hetero", "b_factor", "occupancy"]
    for name in names:
        assert getattr(cif, name).tolist() == getattr(pdb, name).tolist(), name
    assert np.array_equal(cif.coord, pdb.coord)
    assert (cif.occupancy == 1).all()


def test_both_formats_are_read_back_alike(tmp_path):
    written_in_both(tmp_path)
    pdb, cif = (read_structure(tmp_path / name) for name in ("a.pdb", "a.cif"))
    for field in dataclasses.fields(Protein):
        assert np.array_equal(getattr(pdb, field.name), getattr(cif, field.name)), field.name
    assert pdb.residue_ids.tolist() == ["-2", "-1", "0", "1", "52", "52A", "52B", "53", "60"]
    assert pdb.res_idx.tolist() == [-2, -1, 0, 1, 52, 53, 54, 55, 62]


def test_label_numbers_count_each_chain_from_one(tmp_path):
    """By them a reader knows what belongs to a polymer; the author's may be below 1."""
    written_in_both(tmp_path)
    table = CIFFile.read(tmp_path / "a.cif").block["atom_site"]
    assert table["label_entity_id"].as_array(int).tolist() == [1] * 20 + [2] * 24  # each chain is an entity
    assert sorted(set(table["label_seq_id"].as_array(int).tolist())) == [1, 2, 3, 4, 5]
    assert set(table["auth_seq_id"].as_array(int).tolist()) == {-2, -1, 0, 1, 52, 53, 60}


def test_mmcif_has_no_columns_to_burst(tmp_path):
    atom37 = backbone(2) - np.float32(5000)
    write_mmcif(tmp_path / "a.cif", atom37, [0, 1], [1, 1], [99_998, 99_999], atom_mask=np.arange(37) < 5)
    read = read_structure(tmp_path / "a.cif")
    np.testing.assert_allclose(read.atom37[:, :5], atom37[:, :5], atol=1e-3)
    assert read.res_idx.tolist() == [99_998, 99_999]


def test_what_no_format_can_hold_leaves_no_file(tmp_path):
    with pytest.raises(UserError, match="not finite"):
        write_mmcif(tmp_path / "a.cif", backbone(2) * np.nan, [0, 1], *numbers(2), atom_mask=np.arange(37) < 5)
    assert not list(tmp_path.iterdir())
