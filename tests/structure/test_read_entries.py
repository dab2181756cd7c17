"""The reader on real entries of the Protein Data Bank. Counts were derived from the files by other means: the residue
table of mmCIF files (`_pdbx_poly_seq_scheme`), lines counted in PDB files."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from biotite.structure.io.pdbx import CIFFile

from app.chem.residues import index_of, to_sequence
from app.data.numpy_pickle import load_numpy_pickle
from app.structure.read import read_structure, read_structure_with_report, split_chains

NOT_PROTEIN = {"DA", "DC", "DG", "DT", "A", "C", "G", "U"}


def entry(shared: Path, name: str) -> Path:
    (path,) = (shared / "structures").glob(f"{name}.*")
    return path


def lengths(protein) -> dict[str, int]:
    return {chain.chain_ids[0]: len(chain) for chain in split_chains(protein)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1lcd", {"A": 51}),  # beside two strands of DNA; NMR, hydrogens
        ("2kl8", {"A": 85}),  # hydrogens
        ("2ofg", {"X": 106}),
        ("2axd", {"S": 76}),
        ("1tim", {"A": 247, "B": 247}),
        ("1igy", {"A": 213, "B": 434, "C": 213, "D": 434}),  # insertion codes
        ("1k1i", {"A": 223}),  # a TER record at each gap
        ("3zee", {"A": 84}),
        ("3mht", {"A": 327}),  # DNA, and a ligand with N, CA and C
        ("6wqa", {"A": 391}),  # bare _atom_site records
        ("7cfn", {"A": 232, "B": 339, "G": 58, "N": 128, "R": 274}),
        ("4zhl", {"U": 247, "P": 10}),
        ("5kc1", dict(zip("CDABGHKLEFIJ", (33, 51, 29, 57, 33, 53, 24, 60, 30, 61, 29, 58), strict=True))),
        ("2gfb", {letter: 214 if i % 2 == 0 else 219 for i, letter in enumerate("ABCDEFGHIJKLMNOP")}),
    ],
)
def test_chains_and_lengths(shared, name, expected):
    assert lengths(read_structure(entry(shared, name))) == expected


def test_models_are_counted_and_the_first_is_read(shared):
    for name, models in {"1lcd": 3, "2ofg": 3, "2axd": 12, "2kl8": 1}.items():
        assert read_structure_with_report(entry(shared, name))[1].models == models
    residues = [len(read_structure(entry(shared, "2ofg"), model=model)) for model in (1, 2, 3)]
    assert residues == [106, 76, 71], "its models differ in length"


def test_insertion_codes(shared):
    heavy = split_chains(read_structure(entry(shared, "1igy")))[1]
    assert (np.diff(heavy.res_idx) > 0).all()
    start = heavy.res_idx.tolist().index(52)
    assert heavy.res_idx[start : start + 3].tolist() == [52, 53, 54], "52, 52A, 53"


def test_conformers(shared):
    _, report = read_structure_with_report(entry(shared, "4i39"))
    assert report.alternate == 125, "the whole chain has two"


def test_unknown_residue(shared):
    protein = read_structure(entry(shared, "5eil"))  # BP5, a residue with bipyridine
    assert [to_sequence(chain.aatype).count("X") for chain in split_chains(protein)] == [1, 1, 1]
    assert (protein.atom_mask[protein.aatype == 20][:, 5:-1] == 0).all()


def test_every_entry_is_sound(shared):
    paths = sorted((shared / "structures").glob("*.gz"))
    assert len(paths) == 47
    for path in paths:
        protein = read_structure(path)
        assert np.isfinite(protein.atom37).all() and np.isfinite(protein.b_factors).all()
        assert protein.atom_mask[:, :3].all() and (protein.atom37[~protein.atom_mask] == 0).all()
        for chain in split_chains(protein):
            assert (np.diff(chain.res_idx) > 0).all()
            bond = np.linalg.norm(chain.atom37[1:, 0] - chain.atom37[:-1, 2], axis=-1)
            assert np.median(bond) == pytest.approx(1.33, abs=0.03), (path, chain.chain_ids)


def test_sequences_and_numbers_are_those_of_the_residue_table(shared):
    compared = 0
    for path in sorted((shared / "structures").glob("*.cif.gz")):
        block = CIFFile.read(io.StringIO(gzip.decompress(path.read_bytes()).decode())).block
        if "pdbx_poly_seq_scheme" not in block:
            continue
        table = block["pdbx_poly_seq_scheme"]
        columns = ("pdb_strand_id", "mon_id", "pdb_mon_id", "pdb_seq_num", "pdb_ins_code")
        rows: dict[str, list] = {}
        for strand, name, modelled, number, code in zip(*(table[key].as_array(str) for key in columns), strict=True):
            if modelled not in ("?", ".") and name not in NOT_PROTEIN:
                rows.setdefault(str(strand), []).append((index_of(name), int(number), str(code)))
        chains = {chain.chain_ids[0]: chain for chain in split_chains(read_structure(path))}
        assert set(chains) == set(rows), path
        for strand, expected in rows.items():
            chain = chains[strand]
            if (path.name[:4], strand) == ("2xhe", "A"):  # one residue has no C
                assert len(chain) == len(expected) - 1
                continue
            assert chain.aatype.tolist() == [aatype for aatype, _, _ in expected], (path, strand)
            if all(code in (".", "?") for _, _, code in expected) and (np.diff([n for _, n, _ in expected]) > 0).all():
                assert chain.res_idx.tolist() == [number for _, number, _ in expected], (path, strand)
            compared += 1
    assert compared > 70


def test_agrees_with_what_multiflow_made_of_the_same_entries(shared):
    paths = sorted((shared / "legacy_multiflow" / "dataset" / "processed").rglob("*.pkl"))
    assert len(paths) == 5
    for path in paths:
        theirs = load_numpy_pickle(path)
        ours = split_chains(read_structure(entry(shared, path.stem.lower())))[0]
        assert ours.aatype.tolist() == theirs["aatype"].tolist()
        assert ours.res_idx.tolist() == theirs["residue_index"].tolist()
        assert (ours.atom_mask == theirs["atom_mask"].astype(bool)).all()
        np.testing.assert_allclose(
            ours.atom37[ours.atom_mask], theirs["atom_positions"][ours.atom_mask], atol=1e-4, rtol=0
        )
