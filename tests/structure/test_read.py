"""The reader on small files that hold one difficulty each. Real entries: test_read_entries.py."""

import gzip

import numpy as np
import pytest

from app.chem.residues import to_sequence
from app.errors import UserError
from app.structure.read import read_structure, read_structure_with_report, split_chains

BACKBONE = {"N": (-0.525, 1.363, 0.0), "CA": (0.0, 0.0, 0.0), "C": (1.526, 0.0, 0.0), "O": (2.1, -1.0, 0.0)}
SPACING = 3.3  # angstrom along x: brings C of one residue and N of the next within a bond


def atom(name, residue, number, x=0.0, xyz=None, chain="A", altloc=" ", icode=" ", record="ATOM", occ=1.0, b=10.0):
    x, y, z = xyz or (BACKBONE[name][0] + x, *BACKBONE[name][1:])
    return (
        f"{record:6}{1:5} {name:^4}{altloc}{residue:>3} {chain}{number:>4}{icode}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occ:6.2f}{b:6.2f}          {name[0]:>2}"
    )


def residue(name, number, place, atoms=("N", "CA", "C", "O"), **more):
    return [atom(each, name, number, x=SPACING * place, **more) for each in atoms]


def chain(names, first=1, place=0, **more):
    return [line for i, name in enumerate(names) for line in residue(name, first + i, place + i, **more)]


@pytest.fixture
def read(tmp_path):
    def from_lines(lines, name="test.pdb", **more):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return read_structure_with_report(path, **more)

    return from_lines


def mmcif(rows):
    """An mmCIF text from dicts of columns."""
    columns = list(rows[0])
    return ["data_test", "#", "loop_", *(f"_atom_site.{name}" for name in columns)] + [
        " ".join(str(row[name]) for name in columns) for row in rows
    ]


def mmcif_rows(names, asym="A", auth="A", first_auth=1, label=True, group="ATOM", place=0):
    return [
        {
            "group_PDB": group,
            "label_atom_id": name,
            "label_comp_id": comp,
            "label_asym_id": asym,
            "label_seq_id": i + 1 if label else ".",
            "Cartn_x": BACKBONE[name][0] + SPACING * (i + place),
            "Cartn_y": BACKBONE[name][1],
            "Cartn_z": BACKBONE[name][2],
            "auth_seq_id": first_auth + i,
            "auth_asym_id": auth,
        }
        for i, comp in enumerate(names)
        for name in BACKBONE
    ]


def test_fields_of_a_tidy_chain(read):
    protein, report = read(chain(["MET", "GLY", "TRP"], first=7))
    assert protein.name == "test" and protein.chain_ids == ("A",) and to_sequence(protein.aatype) == "MGW"
    assert protein.res_idx.tolist() == [7, 8, 9] and protein.chain_idx.tolist() == [1, 1, 1]
    assert protein.atom37.dtype == np.float32 and protein.atom37.shape == (3, 37, 3)
    assert protein.atom_mask.dtype == bool and protein.atom_mask.sum() == 12
    assert (protein.atom37[~protein.atom_mask] == 0).all()
    assert protein.aatype.dtype == protein.res_idx.dtype == protein.chain_idx.dtype == np.int64
    assert protein.b_factors.tolist() == [10.0] * 3 and protein.b_factors.dtype == np.float32
    np.testing.assert_allclose(protein.atom37[1, 0], [SPACING - 0.525, 1.363, 0.0], atol=1e-3)
    assert report.notes() == [] and report.dropped == 0


@pytest.mark.parametrize("name", ["a.pdb", "a.ent", "A.PDB", "a.pdb.gz", "pdb1abc.ent.gz"])
def test_pdb_suffixes_plain_and_gzipped(tmp_path, name):
    text = "\n".join(chain(["ALA", "SER"])).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert len(read_structure(tmp_path / name)) == 2


def test_content_tells_gzip_and_format_where_the_suffix_is_wrong(tmp_path):
    (tmp_path / "a.pdb").write_bytes(gzip.compress("\n".join(chain(["ALA"])).encode()))
    (tmp_path / "b.pdb.gz").write_text("\n".join(chain(["ALA"])))
    (tmp_path / "c.pdb").write_text("\n".join(mmcif(mmcif_rows(["ALA"]))))
    assert [len(read_structure(tmp_path / name)) for name in ("a.pdb", "b.pdb.gz", "c.pdb")] == [1, 1, 1]


def test_models(read):
    lines = ["MODEL        3", *chain(["ALA"]), "ENDMDL", "MODEL        7", *chain(["GLY", "SER"]), "ENDMDL", "END"]
    first, report = read(lines)
    assert to_sequence(first.aatype) == "A" and report.models == 2
    assert to_sequence(read(lines, model=2)[0].aatype) == "GS"
    with pytest.raises(UserError, match=r"test.pdb: the file has 2 models, there is no model 3"):
        read(lines, model=3)


def test_structures_divided_by_end_are_models(read):
    protein, report = read([*chain(["ALA", "GLY"]), "END", *chain(["ALA", "GLY"]), "END"])
    assert len(protein) == 2 and report.models == 2


def test_one_conformer_a_residue_of_the_highest_occupancy(read):
    lines = [
        *residue("SER", 1, 0, atoms=("N", "C", "O")),
        atom("CA", "SER", 1, xyz=(0.0, 0.1, 0.0), altloc="A", occ=0.4),
        atom("CA", "SER", 1, xyz=(0.0, -0.1, 0.0), altloc="B", occ=0.6),
        atom("CB", "SER", 1, xyz=(0.0, 1.0, 1.0), altloc="A", occ=0.4),
        atom("OG", "SER", 1, xyz=(9.0, 9.0, 9.0), altloc="A", occ=0.4),
        atom("CB", "SER", 1, xyz=(0.0, -1.0, 1.0), altloc="B", occ=0.6),
    ]
    protein, report = read(lines)
    assert protein.atom37[0, 1].tolist() == pytest.approx([0.0, -0.1, 0.0])
    assert protein.atom37[0, 3].tolist() == pytest.approx([0.0, -1.0, 1.0])
    assert protein.atom_mask.sum() == 5, "OG belongs to the other conformer"
    assert report.alternate == 1


def test_conformers_of_equal_occupancy_give_the_first_and_a_whole_backbone_goes_first(read):
    equal = [
        *residue("ALA", 1, 0, atoms=("N", "C")),
        atom("CA", "ALA", 1, xyz=(0.0, 0.1, 0.0), altloc="A", occ=0.5),
        atom("CA", "ALA", 1, xyz=(0.0, 0.2, 0.0), altloc="B", occ=0.5),
    ]
    assert read(equal)[0].atom37[0, 1, 1] == pytest.approx(0.1)
    partial = [*equal, atom("CB", "ALA", 1, xyz=(1.0, 1.0, 1.0), altloc="C", occ=0.9)]
    assert read(partial)[0].atom37[0, 1, 1] == pytest.approx(0.1)


def test_microheterogeneity_is_one_residue(read):
    lines = [
        *residue("GLY", 1, 0),
        *residue("PRO", 2, 1, altloc="A", occ=0.3),
        *residue("SER", 2, 1, altloc="B", occ=0.7),
        *residue("GLY", 3, 2),
    ]
    assert to_sequence(read(lines)[0].aatype) == "GSG"


def test_conformers_written_apart_are_one_residue(read):
    a = [line for i in range(3) for line in residue("ALA", i + 1, i, altloc="A", occ=0.5)]
    b = [line for i in range(3) for line in residue("ALA", i + 1, i, altloc="B", occ=0.5)]
    assert read(a + b)[0].res_idx.tolist() == [1, 2, 3]


def test_insertion_codes_are_unrolled_and_gaps_kept(read):
    numbers = [(52, " "), (52, "A"), (52, "B"), (53, " "), (56, " ")]
    lines = [line for i, (n, code) in enumerate(numbers) for line in residue("ALA", n, i, icode=code)]
    protein, report = read(lines)
    assert protein.res_idx.tolist() == [52, 53, 54, 55, 58] and report.renumbered == 4


def test_numbers_out_of_order(read):
    numbers = [-2, -1, 1, 1001, 1002, 5, 6, 9]
    protein, _ = read([line for i, n in enumerate(numbers) for line in residue("ALA", n, i)])
    assert protein.res_idx.tolist() == [-2, -1, 1, 1001, 1002, 1003, 1004, 1007]


def test_modified_residues_become_their_parents(read):
    lines = [
        *residue("ALA", 1, 0),
        *residue("MSE", 2, 1, record="HETATM"),
        atom("SE", "MSE", 2, xyz=(4.0, 4.0, 4.0), record="HETATM"),
        *residue("CME", 3, 2, record="HETATM"),
        atom("SG", "CME", 3, xyz=(5.0, 4.0, 4.0), record="HETATM"),
        atom("CZ", "CME", 3, xyz=(6.0, 4.0, 4.0), record="HETATM"),
        *residue("HYP", 4, 3, record="HETATM"),
        *residue("ALA", 5, 4),
    ]
    protein, report = read(lines)
    assert to_sequence(protein.aatype) == "AMCPA" and report.modified == 3
    assert protein.atom_mask[1, 18] and protein.atom37[1, 18].tolist() == [4.0, 4.0, 4.0], "SE is read as SD"
    assert protein.atom_mask[2].sum() == 5, "a cysteine has no CZ"


def test_unknown_residues_are_x(read):
    protein, report = read([*residue("ALA", 1, 0), *residue("ZZZ", 2, 1, record="HETATM"), *residue("UNK", 3, 2)])
    assert to_sequence(protein.aatype) == "AXX" and report.unknown == 2


def test_ligands_waters_nucleic_acids_and_hydrogens_are_left_out(read):
    lines = [
        *chain(["ALA", "GLY"]),
        atom("H", "GLY", 2, xyz=(4.0, 1.0, 1.0)),
        "TER",
        *residue("GLU", 201, 20, record="HETATM"),  # a free amino acid
        *residue("SAH", 202, 30, record="HETATM"),  # a ligand with N, CA and C
        atom("CA", " CA", 203, xyz=(0.0, 9.0, 9.0), record="HETATM"),  # calcium
        atom("O", "HOH", 301, record="HETATM"),
        atom("P", " DA", 1, xyz=(20.0, 0.0, 0.0), chain="B"),
        atom("C1'", " DA", 1, xyz=(21.0, 0.0, 0.0), chain="B"),
    ]
    protein, report = read(lines)
    assert to_sequence(protein.aatype) == "AG" and protein.chain_ids == ("A",)
    assert protein.atom_mask.sum() == 8 and report.dropped == 0


def test_residues_without_usable_backbone_are_dropped_and_counted(read):
    lines = [
        *residue("ALA", 1, 0),
        *residue("ALA", 2, 1, atoms=("N", "CA", "O")),
        *residue("ALA", 3, 2, atoms=("N", "C")),
        atom("CA", "ALA", 3, xyz=(np.nan, 0.0, 0.0)),
        *(atom(name, "ALA", 4, xyz=(float(x), 0.0, 0.0)) for x, name in enumerate(("N", "CA", "C"))),
        *residue("ALA", 5, 4, atoms=("N", "C")),
        atom("CA", "ALA", 5, xyz=(9999.0, 9999.0, 9999.0)),
        *(atom(name, "ALA", 6, xyz=(0.0, 0.0, 0.0), occ=0.0) for name in BACKBONE),
        *residue("ALA", 7, 6),
        atom("CB", "ALA", 7, xyz=(np.inf, 0.0, 0.0)),
    ]
    protein, report = read(lines)
    assert protein.res_idx.tolist() == [1, 7] and np.isfinite(protein.atom37).all()
    assert (report.incomplete, report.bad_coordinates, report.degenerate) == (1, 3, 1) and report.dropped == 5
    assert not protein.atom_mask[1, 3]
    assert any("1 residues dropped: N, CA or C missing" in note for note in report.notes())


def test_overflowed_coordinates_are_not_numbers(read):
    lines = chain(["ALA", "ALA"])
    lines[1] = lines[1][:30] + "********" + lines[1][38:]
    protein, report = read(lines)
    assert len(protein) == 1 and report.bad_coordinates == 1


def test_zero_occupancy_is_kept(read):
    protein, report = read(chain(["ALA", "ALA"], occ=0.0))
    assert len(protein) == 2 and report.zero_occupancy == 8


def test_lines_without_occupancy_and_b_factor(read):
    protein, _ = read([line[:54] for line in chain(["ALA", "GLY"])])
    assert len(protein) == 2 and protein.b_factors.tolist() == [0.0, 0.0]


def test_several_chains_in_order_of_appearance_even_if_interleaved(read):
    lines = [
        *chain(["ALA"], chain="B"),
        *chain(["GLY", "GLY"], chain="A"),
        *chain(["SER"], first=2, chain="B", place=1),
    ]
    protein, _ = read(lines)
    assert protein.chain_ids == ("B", "A") and protein.chain_idx.tolist() == [1, 1, 2, 2]
    b, a = split_chains(protein)
    assert (b.name, a.name) == ("test_B", "test_A") and b.chain_idx.tolist() == [1, 1] == a.chain_idx.tolist()
    assert to_sequence(b.aatype) == "AS" and a.chain_ids == ("A",) and len(a.atom37) == len(a.b_factors) == 2


def test_homomers_without_chain_names_part_at_ter(read):
    lines = [*chain(["ALA", "GLY"], chain=" "), "TER", *chain(["ALA", "GLY"], chain=" ", place=9), "TER"]
    protein, _ = read(lines)
    assert protein.chain_ids == ("A", "B") and protein.res_idx.tolist() == [1, 2, 1, 2]
    lines = [line.replace(" GLY  ", " GLY A").replace(" ALA  ", " ALA A") for line in lines]
    assert read(lines)[0].chain_ids == ("A", "A_2")


def test_ter_at_a_gap_does_not_part_a_chain(read):
    protein, _ = read([*chain(["ALA", "GLY"]), "TER", *chain(["ALA"], first=6, place=9), "TER"])
    assert protein.chain_ids == ("A",) and protein.res_idx.tolist() == [1, 2, 6]


def test_mmcif_uses_author_names_and_numbers(read):
    rows = mmcif_rows(["ALA", "SER"], auth="H", first_auth=100) + mmcif_rows(["HEM"], "B", "H", label=False, place=2)
    protein, _ = read(mmcif(rows), "test.cif")
    assert protein.chain_ids == ("H",) and protein.res_idx.tolist() == [100, 101], "the ligand is no polymer"


def test_mmcif_without_author_columns_falls_back_to_label(read):
    rows = [
        {key: value for key, value in row.items() if not key.startswith("auth")}
        for row in mmcif_rows(["ALA", "SER"], asym="C")
    ]
    protein, _ = read(mmcif(rows), "test.mmcif")
    assert protein.chain_ids == ("C",) and protein.res_idx.tolist() == [1, 2]
    rows = [{**row, "auth_seq_id": "?", "auth_asym_id": "."} for row in rows]
    protein, _ = read(mmcif(rows), "test.cif")
    assert protein.chain_ids == ("C",) and protein.res_idx.tolist() == [1, 2]


def test_mmcif_without_label_numbers_takes_atom_records(read):
    rows = mmcif_rows(["ALA", "SER"], label=False) + mmcif_rows(["GLU"], label=False, group="HETATM", place=9)
    assert to_sequence(read(mmcif(rows), "test.cif")[0].aatype) == "AS"


def test_mmcif_models_and_missing_coordinates(read):
    rows = [{**row, "pdbx_PDB_model_num": number} for number in (5, 2) for row in mmcif_rows(["ALA", "SER"])]
    rows[0]["Cartn_y"] = "?"
    protein, report = read(mmcif(rows), "test.cif")
    assert report.models == 2 and report.bad_coordinates == 1 and to_sequence(protein.aatype) == "S"
    assert len(read(mmcif(rows), "test.cif", model=2)[0]) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", b"ATOM", "suffix"),
        ("a.pdb", b"", "empty"),
        ("a.pdb", b" \n \n", "empty"),
        ("a.pdb", b"HEADER    NOTHING\nEND\n", "no atoms"),
        ("a.pdb", "\n".join(chain(["ALA"]))[:-40].encode(), "truncated"),
        ("a.pdb", "\n".join(chain(["ALA"])).replace("0.000", "0.0O0").encode(), "not a readable pdb file"),
        ("a.pdb.gz", gzip.compress("\n".join(chain(["ALA"])).encode(), mtime=0)[:-20], "gzip data is truncated"),
        ("a.pdb.gz", b"\x1f\x8bgarbage", "gzip data is truncated"),
        ("a.cif", "\n".join(mmcif(mmcif_rows(["ALA"])))[:-5].encode(), "not a readable mmcif file"),
        ("a.cif", b"data_x\n_entry.id x\n", "no atoms"),
        ("a.cif", bytes(range(256)), "no atoms"),
        ("a.pdb", atom("O", "HOH", 1, record="HETATM").encode(), "no protein chain"),
        ("a.pdb", "\n".join(atom("CA", "ALA", i, x=4.0 * i) for i in range(9)).encode(), "none of its 9 .* CA trace"),
    ],
)
def test_bad_files_give_one_line_that_names_them(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_structure(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"nope.pdb: no such file"):
        read_structure(tmp_path / "nope.pdb")
    (tmp_path / "folder.pdb").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read_structure(tmp_path / "folder.pdb")
