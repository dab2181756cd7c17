import dataclasses
import os

import numpy as np
import pytest
import torch

from app.chem.residues import to_sequence
from app.errors import UserError
from app.sampling.given import from_protein, read_given
from app.sampling.request import Request
from app.structure.read import read_structure
from tests.sampling.made_inputs import write_structure


def read(path, task="inverse_folding", **more):
    return read_given(Request(task=task, out="x", input=path, **more))


def names(given):
    return [one.name for one in given]


def test_every_chain_is_a_task_of_its_own(tmp_path):
    path = write_structure(tmp_path / "two.pdb", 8, 11, first=40, shift=100.0)
    given, skipped = read(path)
    protein = read_structure(path)
    assert names(given) == ["two_A", "two_B"]
    assert skipped == []
    for one, chain in zip(given, (1, 2), strict=True):
        own = protein.chain_idx == chain
        assert to_sequence(one.aatypes) == to_sequence(protein.aatype[own])
        assert one.numbers.tolist() == protein.res_idx[own].tolist()
        assert one.numbers[0] == 40
        assert one.res_idx.tolist() == (one.numbers - 39).tolist()  # from 1 on, the gap kept
        assert one.chain_ids == ("AB"[chain - 1],)
        assert str(path) in one.source
        torch.testing.assert_close(one.frames.trans.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
        ca = torch.from_numpy(protein.atom37[own, 1])
        torch.testing.assert_close(one.frames.trans + one.centre, ca, atol=1e-3, rtol=0)


def test_chains_together(tmp_path):
    (given,), _ = read(write_structure(tmp_path / "two.pdb", 8, 11), chains="together")
    assert given.name == "two"
    assert given.chain_ids == ("A", "B")
    assert given.chain_idx.tolist() == [1] * 8 + [2] * 11
    assert given.res_idx[[0, 8]].tolist() == [1, 1]


def test_fasta_records(tmp_path):
    (tmp_path / "s.fasta").write_text(">one\nACDEF\n>one\nGHI-\n>\nKLM\n>none\n\n")
    given, skipped = read(tmp_path / "s.fasta", "forward_folding")
    assert names(given) == ["one", "one-2", "s_3"]
    assert [to_sequence(one.aatypes) for one in given] == ["ACDEF", "GHI", "KLM"]
    assert given[0].frames is None
    assert given[0].res_idx.tolist() == [1, 2, 3, 4, 5]
    assert given[1].notes == ("1 gaps left out",)
    assert [(one.input, one.reason) for one in skipped] == [
        (f"{tmp_path / 's.fasta'} record none", "the sequence is empty")
    ]


def test_a_bad_record_is_skipped_alone(tmp_path):
    path = tmp_path / "s.fasta"
    path.write_bytes(">one\nACDEF\n>bad\nMKT1AYI\n>prot\xe9ine\nGHI\n".encode("latin-1"))
    given, skipped = read(path, "forward_folding")
    assert names(given) == ["one", "prot_ine"]
    assert [(one.input, one.reason) for one in skipped] == [
        (f"{path} record bad", "it holds 1, which is no residue; give one record a chain")
    ]
    path.write_text(">bad\nMKT1AYI\n")
    with pytest.raises(UserError, match=r"nothing in it can be used: .*s.fasta record bad: it holds 1, which is no"):
        read(path, "forward_folding")


def test_names_are_safe_and_unique_where_case_does_not_count(tmp_path):
    (tmp_path / "s.fa").write_text(">sp|P1/x\nAC\n>a\nAC\n>A\nAC\n>a-2\nAC\n>../..\nAC\n>" + "n" * 300 + "\nAC\n")
    given, _ = read(tmp_path / "s.fa", "forward_folding")
    assert names(given) == ["sp_P1_x", "a", "A-2", "a-2-2", "protein", "n" * 80]


def test_a_folder_with_good_and_bad_files(tmp_path):
    write_structure(tmp_path / "b.pdb", 8)
    write_structure(tmp_path / "sub/b.pdb", 9)
    write_structure(tmp_path / ".hidden.pdb", 9)
    (tmp_path / "a.pdb").write_text("")
    (tmp_path / "c.cif").write_text("data_x\n_nothing 1\n")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "s.fasta").write_text(">s\nACD\n")
    given, skipped = read(tmp_path)
    assert names(given) == ["b_A", "b_A-2"]
    reasons = {one.input: one.reason for one in skipped}
    assert set(reasons) == {str(tmp_path / name) for name in ("a.pdb", "c.cif", "notes.txt", "s.fasta")}
    assert reasons[str(tmp_path / "a.pdb")] == "the file is empty"
    assert "unknown by its suffix" in reasons[str(tmp_path / "notes.txt")]
    assert "needs a structure file" in reasons[str(tmp_path / "s.fasta")]
    given, _ = read(tmp_path, "forward_folding")
    assert names(given) == ["b_A", "s", "b_A-2"]


def test_what_cannot_be_used_at_all(tmp_path):
    long = tmp_path / "long.fasta"
    long.write_text(">long\n" + "A" * 2057 + "\n")
    with pytest.raises(
        UserError, match=r"input=.*long.fasta: nothing.*2057 residues, beyond the model's limit of 2056"
    ):
        read(long, "forward_folding")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"input=.*empty: nothing in it can be used: the folder is empty"):
        read(tmp_path / "empty")
    with pytest.raises(UserError, match=r"input=.*none: no such file or folder"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match=r"long.fasta: holds sequences; task=inverse_folding needs a structure"):
        read(long)
    with pytest.raises(UserError, match="chains=together has no effect on sequences"):
        read(long, "forward_folding", chains="together")
    (tmp_path / "cut.pdb").write_text("ATOM      1  N   ALA A   1      11.1\n")
    with pytest.raises(UserError, match=r"cut.pdb: .*truncated"):
        read(tmp_path / "cut.pdb")


def test_what_leads_nowhere_in_a_folder_is_told(tmp_path, monkeypatch):
    write_structure(tmp_path / "in/a.pdb", 8)
    write_structure(tmp_path / "in/closed/b.pdb", 8)
    (tmp_path / "in/gone.pdb").symlink_to("nothing.pdb")
    (tmp_path / "in/loop.pdb").symlink_to("loop.pdb")
    # as for a user who may not list it, which root may
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "closed")
    given, skipped = read(tmp_path / "in")
    assert names(given) == ["a_A", "b_A"]
    assert [one.input for one in skipped] == [
        str(tmp_path / "in" / name) for name in ("closed", "gone.pdb", "loop.pdb")
    ]
    assert {one.reason for one in skipped} == {"a folder that may not be listed, or a link to nothing: mend it"}


def test_what_a_pdb_file_cannot_hold_is_replaced_there_and_noted(tmp_path):
    protein = read_structure(write_structure(tmp_path / "two.pdb", 8, 11))
    odd = dataclasses.replace(protein, chain_ids=("AA", "B"), res_idx=protein.res_idx + 12000)
    given = from_protein(odd, "here")
    assert given.layout.chain_ids == ("AA", "B")
    assert given.layout.name(0) == "AA12001"
    fitting = given.layout.for_pdb()
    assert fitting.chain_ids == ("A", "B")
    assert fitting.numbers[0] == 1
    assert np.array_equal(np.diff(fitting.numbers), np.diff(protein.res_idx))
    assert any("AA as A, B as B in PDB files" in note for note in given.notes)
    assert any("counted from 1 in PDB files" in note for note in given.notes)
    assert from_protein(protein, "here").notes == ()


def test_insertion_codes_are_written_as_they_are(tmp_path):
    protein = read_structure(write_structure(tmp_path / "x.pdb", 8))
    ids = protein.res_idx.astype(str)
    ids[2:5] = ["2A", "2B", "3"]
    odd = dataclasses.replace(protein, residue_ids=ids)
    given = from_protein(odd, "here")
    assert given.layout.numbers.tolist()[:5] == [1, 2, 2, 2, 3]
    assert given.layout.ins_codes.tolist()[:5] == ["", "", "A", "B", ""]
    far = dataclasses.replace(odd, residue_ids=np.array([f"{n}A" for n in protein.res_idx + 12000]))
    assert (
        not from_protein(far, "here").layout.for_pdb().ins_codes.any()
    )  # counted from 1, and codes would go with others


def test_names_and_spans_of_residues(tmp_path):
    (given,), _ = read(write_structure(tmp_path / "two.pdb", 8, 11, first=40), chains="together")
    layout, mask = given.layout, torch.ones(19, dtype=torch.bool)
    assert layout.name(9) == "B41"
    assert layout.spans(mask) == {"A": ["40-44", "46-48"], "B": ["40-45", "47-51"]}  # not over what the file lacks
    assert dataclasses.replace(layout, chain_ids=("A", "B2")).name(9) == "B2:41"  # where a digit would meet another
    mask[1] = mask[8:] = False
    assert layout.spans(mask) == {"A": ["40", "42-44", "46-48"]}
    assert layout.count(mask) == {"A": 7, "B": 0} and layout.chains == {"A": 8, "B": 11}


@pytest.mark.slow
def test_real_entries(shared):
    """Nothing in the folder stops the run; what comes out is finite and centred."""
    given, skipped = read(shared / "structures")
    assert len(given) > 60
    assert len({name.lower() for name in names(given)}) == len(given)
    assert [one.input for one in skipped] == [str(shared / "structures/README.md")]
    for one in given:
        assert torch.isfinite(one.frames.trans).all()
        assert torch.isfinite(one.frames.rotmats).all()
        assert len(one.chain_ids) == 1
