"""`python -m app evaluate`: from a folder to its three files, whatever lies in the folder."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.errors import UserError
from app.evaluation import columns, evaluate, measured
from app.evaluation.cache import FILE, Cache
from app.evaluation.found import find_designs
from app.evaluation.run import evaluate as run
from app.evaluation.self_consistency import COLUMNS
from app.evaluation.settings import EvaluationSettings
from app.structure.write import to_pdb
from tests.evaluation.made_designs import demo, helix, largest_file, write, write_demo, write_manifest

ONE_PROCESS = EvaluationSettings(workers=1, resamples=100, foldseek=False)

ATOM = "ATOM      1  CA  ALA A   1      11.000  12.000  13.000  1.00  0.00           C\n"
HOSTILE = {
    "text.pdb": "this is no structure\n",
    "empty.cif": "",
    "trace.pdb": ATOM,
    "nan.pdb": ATOM.replace("  11.000", "     nan") + ATOM.replace("CA ", "N  ") + ATOM.replace("CA ", "C  "),
    "cut.cif": "data_x\nloop_\n_atom_site.group_PDB\n_atom_site.id\nATOM 1 ATOM",
    "dna.pdb": ATOM.replace("CA  ALA", "P    DA"),
    "short.pdb": ATOM[:40],
}


def settings(**changes) -> EvaluationSettings:
    return ONE_PROCESS.model_copy(update=changes)


def table(folder, **options):
    return pd.read_csv(folder / "evaluation/designs.csv", keep_default_na=False, **options).set_index("id")


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        write_demo(tmp_path / f"designs/d{index}.pdb", index)
    write(tmp_path / "designs/helix.pdb", helix(), aatypes=3)
    return tmp_path / "designs"


def test_the_three_files(folder):
    found = evaluate(folder, ONE_PROCESS)
    csv, parquet = table(folder), pd.read_parquet(folder / "evaluation/designs.parquet").set_index("id")
    assert list(csv.index) == list(parquet.index) == ["d0", "d1", "d2", "helix"]
    assert list(csv.columns) == [*parquet.columns][:-1] == [*found.rows[0]][1:] and parquet.columns[-1] == "skipped"
    assert (
        parquet["bond_outliers"].dtype == "Float64"
        and float(csv["bond_outliers"]["d1"]) == parquet["bond_outliers"]["d1"]
    )
    assert csv["tm_score"]["d0"] == "skipped: no --reference given" and pd.isna(parquet["tm_score"]["d0"])
    assert json.loads(parquet["skipped"]["d0"])["tm_score"] == "no --reference given"
    assert csv["codesign_rmsd"]["d0"].startswith("skipped: ")
    assert csv["sequence"]["helix"] == "D" * 20 and csv["topology"]["helix"] == "H"
    assert csv["certainty"]["d0"].startswith("skipped: no manifest")
    summary = json.loads((folder / "evaluation/summary.json").read_text())
    assert summary == found.summary and summary["format"] == 1 and summary["designs"] == 4 and not summary["problems"]
    assert summary["metrics"]["clashes"] == {"mean": 0, "median": 0, "low": 0, "high": 0, "n": 4}
    assert summary["metrics"]["length"]["mean"] == np.mean(parquet["length"])
    assert summary["skipped"]["tm_score"] == "no --reference given" and "helix" not in summary["skipped"]
    assert summary["set"]["diversity"]["compared"] == 4 and summary["set"]["novelty"]["skipped"]
    assert summary["provenance"]["versions"]["biotite"] and summary["provenance"]["thresholds"]["same_fold"] == 0.5


def test_a_run_and_its_manifest(tmp_path):
    for index in range(2):
        write_demo(tmp_path / f"structures/len_{index}.pdb", index)
    write_demo(tmp_path / "reference.pdb", 0, shift=4.0)
    write_manifest(
        tmp_path,
        [
            {"id": "len_0", "task": "forward_folding", "input": f"{tmp_path}/reference.pdb chain A", "flags": ["odd"]},
            {"id": "len_1", "task": "unconditional"},
            {"id": "len_2", "task": "unconditional", "error": "out of memory"},
        ],
    )
    write_demo(tmp_path / "structures/len_1.pdb", 2)
    said = []
    found = run(tmp_path, ONE_PROCESS, say=said.append)
    rows = {row["id"]: row for row in found.rows}
    assert list(rows) == ["len_0", "len_1", "len_2"] and found.problems == ["len_2: not made: out of memory"]
    assert said == [*found.problems, "structures/len_1.pdb: the file is not as the manifest has it"]
    assert rows["len_0"]["tm_score"] == pytest.approx(1, abs=1e-4) and rows["len_0"]["recovery"] == 1
    assert rows["len_0"]["reference"] == "reference.pdb chain A"
    assert rows["len_0"]["flags"] == "odd" and rows["len_0"]["certainty"] == 50
    assert rows["len_1"]["flags"] == "the file is not as the manifest has it"
    assert rows["len_2"]["bond_outliers"] == "skipped: no structure" and rows["len_2"]["error"]
    assert {*rows["len_2"]} == {*rows["len_0"]}
    assert (found.summary["designs"], found.summary["evaluated"]) == (3, 2)
    assert found.summary["provenance"]["run"] == {"seed": 7}


def test_a_run_whose_manifest_is_damaged(tmp_path):
    write(tmp_path / "structures/a.pdb", helix())
    write_manifest(tmp_path, [{"id": "a", "flags": ["odd"]}])
    (tmp_path / ".manifest.json").write_bytes((tmp_path / "manifest.json").read_bytes())
    (tmp_path / "manifest.json").write_text("{")
    said = []
    (row,) = run(tmp_path, ONE_PROCESS, say=said.append).rows
    assert row["flags"] == "odd" and row["certainty"] == 50
    assert said == ["manifest.json: damaged; its copy, .manifest.json, serves"]


def test_a_second_design_of_an_id_has_a_row_and_no_numbers(tmp_path):
    write(tmp_path / "structures/a.pdb", helix())
    write_manifest(tmp_path, [{"id": "a"}, {"id": "a"}])
    first, second = run(tmp_path, ONE_PROCESS).rows
    assert first["helix"] > 0.5 and not first["error"]
    assert second["error"] == "another design has this id" and second["helix"] == "skipped: no structure"
    assert second["file"] == "" and second["cluster"] == "skipped: no structure"


def test_real_structures_against_themselves(shared, tmp_path):
    for name in ("1aki.cif.gz", "2kl8.pdb.gz", "1bc8.pdb.gz"):
        (tmp_path / name).write_bytes((shared / "structures" / name).read_bytes())
    found = run(tmp_path, settings(reference=shared / "structures", novelty=tmp_path))
    for row in found.rows:
        assert row["tm_score"] == row["lddt"] == row["recovery"] == 1 and row["ca_rmsd"] == 0
        assert row["novelty_tm_score"] == pytest.approx(1, abs=1e-3)
    assert found.summary["set"]["diversity"]["clusters"] == 3 and found.summary["set"]["novelty"]["new_folds"] == 0


def test_what_cannot_be_read_is_one_line_each_and_stops_nothing(folder):
    for name, content in HOSTILE.items():
        (folder / name).write_text(content)
    write(folder / "one.pdb", helix(1))
    said = []
    found = run(folder, ONE_PROCESS, say=said.append)
    assert len(said) == len(HOSTILE) and all("\n" not in line for line in said)
    assert {line.split(":")[0] for line in said} == {*HOSTILE}
    rows = {row["id"]: row for row in found.rows}
    assert all(rows[name.split(".")[0]]["error"] for name in HOSTILE)
    assert rows["d0"]["error"] == rows["one"]["error"] == "" and rows["one"]["length"] == 1
    assert found.summary["evaluated"] == 5


def test_where_nothing_can_be_evaluated_nothing_is_written(tmp_path):
    for name, content in HOSTILE.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"none of its 7 designs can be evaluated: cut\.cif"):
        run(tmp_path, ONE_PROCESS)
    assert not (tmp_path / "evaluation").exists()
    for option in ("reference", "novelty"):
        with pytest.raises(UserError, match=f"--{option} .*no such folder"):
            run(tmp_path, settings(**{option: tmp_path / "none"}))


def test_3000_residues(tmp_path):
    """Of sixty chains, in seconds and without a matrix of all pairs of atoms."""
    index = next(k for k in range(32) if len(demo(k)) >= 50)
    chains = [demo(index).atom37[:50, :5] + 90.0 * np.array([k % 8, k // 8 % 8, 0]) for k in range(60)]
    write(tmp_path / "large.pdb", np.concatenate(chains), chains=np.repeat(np.arange(1, 61), 50))
    (row,) = run(tmp_path, ONE_PROCESS).rows
    assert row["length"] == 3000 and row["chains"] == 60 and row["chain_breaks"] == 0 and row["clashes"] == 0


def test_what_was_measured_is_not_measured_again(folder, monkeypatch):
    first = run(folder, settings(reference=folder))
    written = {path.name: path.read_bytes() for path in (folder / "evaluation").iterdir()}
    performed = []
    perform = measured.perform
    monkeypatch.setattr("app.evaluation.run.perform", lambda task: performed.append(task.path.name) or perform(task))
    assert run(folder, settings(reference=folder)).rows == first.rows
    assert performed == []
    assert {path.name: path.read_bytes() for path in (folder / "evaluation").iterdir()} == written
    write_demo(folder / "d1.pdb", 3)
    again = run(folder, settings(reference=folder))
    assert performed == ["d1.pdb"] and again.rows[0] == first.rows[0] and again.rows[1] != first.rows[1]
    performed.clear()
    monkeypatch.setattr("app.evaluation.design.VERSION", 10**6)
    run(folder, settings(reference=folder))
    assert len(performed) == 4, "another version of a measure is another measure"


def test_names_that_are_no_text(tmp_path):
    """A file system holds bytes; a table holds text."""
    name = os.fsdecode(b"odd\xff.pdb")
    try:
        write(tmp_path / name, helix())
    except OSError:
        pytest.skip("this file system takes no such name")
    (row,) = run(tmp_path, ONE_PROCESS).rows
    assert row["id"] == "odd\\udcff" and row["error"] == ""
    assert list(table(tmp_path).index) == ["odd\\udcff"]
    assert json.loads((tmp_path / "evaluation/summary.json").read_text())["metrics"]["helix"]["n"] == 1


def test_a_cache_of_something_else_is_measured_anew(folder):
    known = settings(novelty=folder)
    first = run(folder, known)
    path = folder / "evaluation" / FILE
    lines = [json.loads(line[65:]) for line in path.read_text().splitlines() if line]
    path.unlink()
    columns_alone = {"columns": next(value for key, value in lines if key.startswith("design/"))["columns"]}
    with Cache(path.parent) as cache:
        for place, (key, _) in enumerate(lines):
            cache.put(key, (columns_alone, [], {"columns": {}}, {"columns": {"helix": 9}}, None)[place % 5])
    assert run(folder, known).rows == first.rows


def test_a_defect_in_one_design_stops_no_other(folder, monkeypatch):
    measures = measured.design.measures

    def breaks(protein):
        if protein.name == "d1":
            raise ZeroDivisionError("odd")
        return measures(protein)

    monkeypatch.setattr("app.evaluation.design.measures", breaks)
    found = run(folder, ONE_PROCESS)
    assert found.problems == ["d1.pdb: unexpected ZeroDivisionError: odd"] and found.summary["evaluated"] == 3


def test_self_consistency_meets_the_table(folder, monkeypatch):
    def refolded(designs, settings, progress):
        assert len(designs["helix"]) == 20 and list(designs) == ["d0", "d1", "d2", "helix"]
        values = dict.fromkeys(COLUMNS, 1.5) | {"sc_sequence": "AA"}
        return {name: values | {"designable": name != "d0"} for name in designs}, {"model": "x"}

    monkeypatch.setattr("app.evaluation.run.refolded", refolded)
    summary = run(folder, ONE_PROCESS).summary
    assert summary["metrics"]["designable"]["mean"] == 0.75 and summary["metrics"]["sc_rmsd"]["n"] == 4
    assert summary["set"]["designable"]["designs"] == 3
    assert summary["provenance"]["self_consistency"] == {"model": "x"}
    assert pd.read_parquet(folder / "evaluation/designs.parquet")["sc_sequence"].tolist() == ["AA"] * 4


@pytest.mark.parametrize("size", [100, 5_000, 12_000])
def test_a_full_disk_leaves_no_half_written_table(folder, size):
    with (
        largest_file(size),
        pytest.raises(UserError, match=r"evaluation: cannot be written \(File too large\): make room"),
    ):
        run(folder, ONE_PROCESS)
    assert {file.name for file in (folder / "evaluation").iterdir()} <= {FILE, "designs.csv"}
    assert run(folder, ONE_PROCESS).summary["evaluated"] == 4


def test_a_reference_of_no_use_is_told_and_stops_no_other(folder, tmp_path):
    for name in ("d0", "d1"):
        write_demo(tmp_path / f"references/{name}.pdb", int(name[1]))
    (tmp_path / "references/d0.pdb").write_text("text")
    (tmp_path / "references/d2.pdb").symlink_to(tmp_path / "references/d1.pdb")
    said = []
    rows = {row["id"]: row for row in run(folder, settings(reference=tmp_path / "references"), say=said.append).rows}
    assert said[0] == f"d0: not compared: {tmp_path}/references/d0.pdb: the file holds no atoms"
    assert said[1].startswith("d2: not compared: ") and len(said) == 2
    assert rows["d1"]["tm_score"] == 1 and rows["helix"]["tm_score"] == "skipped: no reference of that name"


def test_the_command(folder):
    (folder / "text.pdb").write_text("x")
    options = ["evaluate", str(folder), "--workers", "1", "--no-foldseek"]
    told = CliRunner().invoke(cli, options)
    assert told.exit_code == 0 and "4 of 5 designs evaluated" in told.stdout and "diversity:" in told.stdout
    assert told.stderr.splitlines() == ["text.pdb: the file holds no atoms"]
    against = "skipped: recovery, ca_rmsd, backbone_rmsd, tm_score, lddt: no --reference given"
    assert {against, "skipped: novelty_tm_score: no --novelty given"} < {*told.stdout.splitlines()}
    told = CliRunner().invoke(cli, [*options, "--json", "--novelty", str(folder)])
    assert json.loads(told.stdout) == json.loads((folder / "evaluation/summary.json").read_text())
    with pytest.raises(UserError, match="no such folder"):
        CliRunner().invoke(cli, ["evaluate", str(folder / "none")], catch_exceptions=False)


def test_names_that_spreadsheets_would_run_are_kept_from_it(tmp_path):
    names = ["\t=cmd", "\n=cmd", "=cmd", "b"]
    for name in names:
        write(tmp_path / f"{name}.pdb", helix())
    run(tmp_path, ONE_PROCESS)
    assert list(table(tmp_path).index) == ["'\t=cmd", "'\n=cmd", "'=cmd", "b"]
    assert pd.read_parquet(tmp_path / "evaluation/designs.parquet")["id"].tolist() == names


def test_what_was_left_out_in_reading_is_noted(tmp_path):
    write(tmp_path / "whole.pdb", helix())
    lines = (tmp_path / "whole.pdb").read_text().splitlines(keepends=True)
    (tmp_path / "part.pdb").write_text("".join(line for line in lines if line[12:26].split()[::3] != ["CA", "5"]))
    for _ in range(2):  # measured, and out of the cache
        part, whole = run(tmp_path, ONE_PROCESS).rows
        assert whole["notes"] == "" and part["length"] == 19
        assert part["notes"] == "1 residues dropped: N, CA or C missing"


def test_a_design_in_two_formats_is_one(tmp_path):
    to_pdb(demo(0), tmp_path / "a.pdb")
    (tmp_path / "a.cif").write_text("")
    assert [one.relative for one in find_designs(tmp_path)[0]] == ["a.cif"]


def test_every_column_has_its_kind():
    every = (*columns.ABOUT, *columns.DESIGN, *columns.AGAINST, *columns.DIVERSITY, *columns.NOVELTY)
    assert len(every) == len(set(every))
    assert set(every) >= columns.TEXT and set(every) - columns.TEXT >= columns.NAMES
