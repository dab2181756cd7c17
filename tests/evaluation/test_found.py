"""Which designs a folder holds, and which references they have."""

import json
import os

import pytest

from app.errors import UserError
from app.evaluation.found import Found, find_designs, inside, is_altered, structure_of
from app.evaluation.novelty import read_known
from app.evaluation.references import References, protein_of
from tests.evaluation.made_designs import helix, strand, write, write_manifest


def test_any_folder_of_structures(tmp_path):
    for name in (
        "b.pdb",
        "a.cif",
        "a.pdb",
        "sub/c.pdb.gz",
        "evaluation/x.pdb",
        "trajectories/y.pdb",
        ".hidden.pdb",
        "n.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    designs, manifest = find_designs(tmp_path)
    assert manifest == {}
    assert {one.id: one.relative for one in designs} == {"a": "a.cif", "b": "b.pdb", "sub/c": "sub/c.pdb.gz"}


def test_a_run_by_its_manifest(tmp_path):
    write(tmp_path / "structures/len20_0.pdb", helix())
    write(tmp_path / "structures/stray.pdb", helix())
    records = [{"id": "len20_0"}, {"id": "len20_1", "error": "out of\nmemory"}, {"id": "gone", "status": "done"}]
    write_manifest(tmp_path, records)
    first, failed, gone = find_designs(tmp_path)[0]
    assert first.path == tmp_path / "structures/len20_0.pdb"
    assert not is_altered(first.record, first.relative, first.record["files"][first.relative])
    assert is_altered(first.record, first.relative, "0" * 64)
    assert failed.path is None and failed.missing == "not made: out of memory"
    assert gone.missing == "its structure file is not there"


def test_files_outside_the_folder_are_not_looked_at(tmp_path):
    write(tmp_path / "secret.pdb", helix())
    run = tmp_path / "run"
    (run / "structures").mkdir(parents=True)
    for name in ("structures/../../secret.pdb", str(tmp_path / "secret.pdb"), "structures/link.pdb"):
        write_manifest(run, [{"id": "x", "status": "done", "files": {name: "0"}}])
        assert find_designs(run)[0][0].path is None
    (run / "structures/link.pdb").symlink_to(tmp_path / "secret.pdb")
    assert find_designs(run)[0][0].path is None


@pytest.mark.parametrize("name", ["structures/a\0b.pdb", f"structures/{'a' * 5000}.pdb", "structures/\ud800.pdb"])
def test_names_that_no_file_can_have_are_files_that_are_not_there(tmp_path, name):
    write_manifest(tmp_path, [{"id": "x", "status": "done", "files": {name: "0"}}])
    assert find_designs(tmp_path)[0][0].missing == "its structure file is not there"
    assert not inside(tmp_path, name)


def test_links_in_a_circle_are_no_file(tmp_path):
    (tmp_path / "a.pdb").symlink_to(tmp_path / "a.pdb")
    assert not inside(tmp_path, "a.pdb") and inside(tmp_path, "b.pdb") == tmp_path / "b.pdb"


def test_of_two_formats_mmcif_counts_where_it_is_there(tmp_path):
    record = {"files": ["structures/x.pdb", "structures/x.cif", "trajectories/x.cif"]}
    assert structure_of(record, tmp_path) == "structures/x.cif"
    write(tmp_path / "structures/x.pdb", helix())
    assert structure_of(record, tmp_path) == "structures/x.pdb"
    assert structure_of({"files": 7}, tmp_path) is None


def test_folders_that_may_not_be_listed_are_told(tmp_path, monkeypatch):
    for name in ("a.pdb", "closed/b.pdb"):
        write(tmp_path / name, helix())
    listed = os.scandir

    def scandir(path):  # as for a user who may not list it, which root may
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    said = []
    assert [one.id for one in find_designs(tmp_path, said.append)[0]] == ["a"]
    References(tmp_path, said.append)
    assert len(read_known(tmp_path, said.append)) == 1
    told = "passed over: closed/: Permission denied"
    assert said == [told, f"--reference: {told}", f"--novelty: {told}"]


def test_what_is_no_record_stops_no_other(tmp_path):
    write(tmp_path / "structures/a.pdb", helix())
    write_manifest(tmp_path, [{"id": "a"}])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["designs"] += [7, {"id": 1}, {}]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    first, *others = find_designs(tmp_path)[0]
    assert first.path == tmp_path / "structures/a.pdb"
    assert [one.id for one in others] == [f"record {place} of the manifest" for place in (2, 3, 4)]
    assert {one.missing for one in others} == {"no record of a design: it was altered"}


def test_there_has_to_be_something(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_designs(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no structure file"):
        find_designs(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"designs": []}))
    with pytest.raises(UserError, match="names no design"):
        find_designs(tmp_path)


def test_references_by_name(tmp_path):
    for name in ("1abc.pdb", "1abc_B_0.cif", "2xyz_A.pdb"):
        (tmp_path / name).write_text("")
    references = References(tmp_path)

    def of(design, **record):
        path, chain = references.of(Found(design, tmp_path / "x.pdb", record=record))
        return path.name, chain

    assert of("1abc") == of("1abc_3") == ("1abc.pdb", None)
    assert of("1abc_A_0") == of("1abc_A") == ("1abc.pdb", "A")
    assert of("1abc_B_0") == ("1abc_B_0.cif", None), "the whole name counts most"
    assert of("2xyz_A_7") == ("2xyz_A.pdb", None)
    assert of("len60_0", input="/elsewhere/1abc.pdb.gz chain C") == ("1abc.pdb", "C")
    assert of("x_0", input="seqs.fasta record 2xyz_A") == ("2xyz_A.pdb", None)
    with pytest.raises(UserError, match="no reference of that name"):
        of("3new_A_0")


def test_references_of_one_name_are_told_and_none_at_all_refused(tmp_path):
    with pytest.raises(UserError, match=r"--reference .*: it holds no structure file"):
        References(tmp_path)
    for name in ("a.pdb", "a.cif", "b.pdb"):
        (tmp_path / name).write_text("")
    said = []
    References(tmp_path, said.append)
    assert not said, "two formats, side by side"
    for name in ("sub/a.pdb", "sub/b.pdb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    path, _ = References(tmp_path, said.append).of(Found("a", tmp_path / "x.pdb"))
    assert path == tmp_path / "a.cif"
    assert said == ["--reference: a.cif is taken for a, not a.pdb, sub/a.pdb, and so for 1 more names"]


def test_without_a_folder_the_manifests_input_is_the_reference(tmp_path):
    native = write(tmp_path / "native.pdb", helix())
    references = References(None)

    def of(text):
        return references.of(Found("a", tmp_path / "x.pdb", record={"input": text}))

    assert of(f"{native} chain A") == (native, "A") and of(str(native)) == (native, None)
    for text, said in ((None, "no --reference"), ("x.fasta record y", "no --reference"), ("gone.pdb", "is not where")):
        with pytest.raises(UserError, match=said):
            of(text)


def test_a_chain_of_a_file(tmp_path):
    path = write(tmp_path / "two.pdb", helix(), chains=[1] * 12 + [2] * 8)
    assert len(protein_of(path, None)) == 20 and len(protein_of(path, "B")) == 8
    with pytest.raises(UserError, match="has no chain C"):
        protein_of(path, "C")
    write(path, strand(9))
    assert len(protein_of(path, None)) == 9, "a file that is replaced is read again"
