"""report.html: what it takes from a folder, what it leaves out, what it makes of bad ones."""

import json
import os
import re
import time

import numpy as np
import pytest

from app.errors import UserError
from app.evaluation.found import find_designs
from app.report import page, pictures, steps, write
from app.report.designs import read_folder
from app.structure.write import write_pdb
from tests.report import made_run


def told(path) -> dict:
    """What the page's scripts read."""
    (text,) = re.findall(r'<script type="application/json" id="report-data">(.*?)</script>', path.read_text(), re.S)
    return json.loads(text)


def listed(path) -> dict[str, dict]:
    return {design["id"]: design for design in told(path)["designs"]}


@pytest.fixture
def folder(tmp_path):
    return made_run.run(tmp_path / "run")


def test_a_run_in_full(folder):
    path = write(folder)
    assert path == folder / "report.html"
    text, designs = path.read_text(), listed(path)
    assert list(designs) == [*made_run.DESIGNS, made_run.FAILED]
    for heading in ("Length", "Ramachandran", "Secondary structure", "Peptide bond", "Token certainty", "Composition"):
        assert f"<h3>{heading}</h3>" in text
    assert designs["len40_0"]["structure"]["states"].count("H") > 30
    assert "H" not in designs["len24_0"]["structure"]["states"]
    assert designs["len20+12_0"]["structure"]["chains"] == [["A", 20], ["B", 12]]
    assert [one["name"] for one in designs["len40_0"]["structure"]["paths"]] == ["path", "clean"]
    for row in ("0.6667", "no weights", "sampler.min_t", "2.13.0"):
        assert row in text
    assert "left-out" not in text
    assert write(folder).read_text() == text


def test_designs_that_are_still_to_be_made_are_counted(tmp_path):
    folder, plain = tmp_path / "run", {"status": "failed", "length": 9, "chains": {"A": 9}}
    errors = {"a": "not run yet", "b": "not run: interrupted", "c": "out of memory"}
    made_run.write_manifest(folder, [{"id": name, "error": error, **plain} for name, error in errors.items()])
    assert "2 not run" in write(folder).read_text()


def test_what_is_fixed_and_where_it_ends(folder):
    assert listed(write(folder))["len40_0"]["details"] == [
        ["fixed A", "1-9"],
        ["junction A9–A10", "C–N 1.41 Å, CA–C–N 117.0°, C–N–CA 122.5°"],
    ]


def test_steps_are_averaged_over_designs(folder):
    plots = {plot.title: plot for plot in steps.plots(read_folder(folder))}
    assert list(plots) == ["ca moved"]  # certainty has no number
    assert plots["ca moved"].legend == ("mean", "lowest", "highest")
    (folder / "steps" / "len40_0.csv").write_text("step\x00\n")
    assert "The way from noise" in write(folder).read_text()


def test_nothing_in_it_could_ask_a_network(folder):
    text = write(folder).read_text()
    assert not re.findall(r"(?:src|href|action|data|poster)\s*=\s*[\"'](?!#)", text)
    assert "@import" not in text and "url(" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1).replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy


def test_what_files_say_cannot_leave_its_place(folder):
    text = write(folder).read_text()
    assert made_run.HOSTILE in told(folder / "report.html")["designs"][2]["flags"]
    assert made_run.HOSTILE not in text  # in the settings, the flags and the errors it is escaped
    assert text.count("<script") == 2  # the data and the code


@pytest.mark.parametrize("data", ["</script>", "<!--", "a & b", "\u2028", {"<": [">"]}])
def test_data_within_a_script(data):
    text = page.as_script(data)
    assert json.loads(text) == data
    assert not set("<>&\u2028") & set(text)


@pytest.mark.parametrize("lacking", ["structures", "trajectories", "evaluation"])
def test_what_is_missing_is_left_out(folder, lacking):
    for file in sorted((folder / lacking).iterdir()):
        file.unlink()
    (folder / lacking).rmdir()
    designs = listed(write(folder))
    assert len(designs) == 4
    assert ("structure" in designs["len40_0"]) == (lacking != "structures")
    assert ("cannot be read" in (folder / "report.html").read_text()) == (lacking != "evaluation")


def test_the_first_format_of_manifests(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format"] = 1
    for record in manifest["designs"]:
        record["files"] = list(record["files"])
        del record["flags"], record["chains"]
    manifest["designs"][1]["warning"] = "degenerate sequence: 60% GLY"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    designs = listed(write(folder))
    assert designs["len24_0"]["flags"] == ["degenerate sequence: 60% GLY"]
    assert designs["len40_0"]["flags"] == [] and "structure" in designs["len40_0"]


def test_a_folder_of_structures_alone(tmp_path):
    atom37 = made_run.design([12])
    for name in ("one.pdb", "more/two.pdb"):
        write_pdb(tmp_path / name, atom37, np.zeros(12, int), np.ones(12, int), np.arange(1, 13), np.full(12, 30.0))
    (tmp_path / "bad.cif").write_text("data_nothing")
    designs = listed(write(tmp_path))
    assert set(designs) == {"one", "more/two", "bad"}
    assert designs["one"]["length"] == 12 and designs["one"]["sequence"] == "A" * 12
    assert "certainty" not in designs["one"]["structure"]  # whatever B-factors mean there
    assert "cannot be read: bad" in (tmp_path / "report.html").read_text()


def test_a_damaged_manifest_is_refused_where_there_is_no_copy(folder):
    whole = write(folder).read_text()
    (folder / "report.html").unlink()
    (folder / "manifest.json").rename(folder / ".manifest.json")
    (folder / "manifest.json").write_text("{")
    text = write(folder).read_text()
    assert told(folder / "report.html") == json.loads(
        re.search(r'id="report-data">(.*?)</script>', whole, re.S).group(1)
    )
    assert "manifest.json: damaged; its copy, .manifest.json, serves" in text
    for name in (".manifest.json", "report.html"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"manifest\.json: damaged"):
        write(folder)
    assert not (folder / "report.html").exists()


def test_a_structure_that_was_altered_is_flagged(folder):
    assert not any("as the manifest" in flag for design in listed(write(folder)).values() for flag in design["flags"])
    with (folder / "structures/len24_0.pdb").open("a") as file:
        file.write("REMARK\n")
    designs = listed(write(folder))
    assert designs["len24_0"]["flags"] == ["the file is not as the manifest has it"] and not designs["len40_0"]["flags"]


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(UserError, match="no structure files"):
        write(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        write(tmp_path / "absent")


def test_records_of_any_kind_are_lived_with(tmp_path):
    odd = {"id": 5, "length": "long", "chains": [1], "files": 7, "flags": "one", "recovery": float("nan"), "seed": None}
    odd |= {"status": "done"}
    made_run.write_manifest(
        tmp_path, [odd, "no record", {}, {"id": "x", "files": {"\0": "", "a" * 5000: "", "a/b": 3}, "flags": [1]}]
    )
    first, second, third = told(write(tmp_path))["designs"]
    assert (first["id"], first["length"], first["flags"]) == ("5", 0, ["one"])
    assert second["id"] == "" and third["flags"] == ["1"]


def test_no_path_leads_out_of_the_folder(tmp_path):
    secret = tmp_path / "structures" / "secret.pdb"
    write_pdb(secret, made_run.design([8]), np.zeros(8, int), np.ones(8, int), np.arange(1, 9))
    inside = tmp_path / "run" / "structures"
    inside.mkdir(parents=True)
    os.symlink(secret, inside / "link.pdb")
    names = ("../structures/secret.pdb", str(secret), "structures/link.pdb")
    records = [made_run.record(f"d{place}", 8, {}, files={name: ""}) for place, name in enumerate(names)]
    made_run.write_manifest(tmp_path / "run", records)
    assert all("structure" not in design for design in told(write(tmp_path / "run"))["designs"])


def test_of_two_formats_the_report_draws_the_one_that_is_evaluated(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (record, *_) = manifest["designs"]
    for name in ("len40_0.cif", "len40_0.pdb"):
        record["files"][f"structures/{name}"] = ""
    (folder / "structures/len40_0.cif").write_text("")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert {one.id: one.structure for one in read_folder(folder).designs}["len40_0"] == find_designs(folder)[0][0].path


def test_a_second_design_of_an_id_has_nothing_of_the_first(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["designs"].append(manifest["designs"][0])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with (folder / "evaluation/designs.csv").open("a") as file:
        file.write("len40_0,skipped: no structure,,\n")
    first, *_, second = told(write(folder))["designs"]
    assert first["id"] == second["id"] == "len40_0" and first["structure"]["residues"] == 40
    assert 0.9 in first["values"] and set(second["values"]) == {None}
    assert "structure" not in second and second["error"] == "another design has this id"


def test_a_name_that_is_no_text_can_be_an_address(tmp_path):
    """The page puts the id of the open design into its address, where half a character raises an error."""
    made_run.write_manifest(tmp_path, [made_run.record("odd\udcff", 8, {}, flags=["\ud800"])])
    (design,) = told(write(tmp_path))["designs"]
    assert design["id"] == "odd\\udcff" and design["flags"] == ["\\ud800"], "as the evaluation writes it"


def test_a_damaged_evaluation_is_named(folder):
    (folder / "evaluation" / "designs.csv").write_bytes(b"id,a\nlen40_0,\0\xff\n")
    (folder / "evaluation" / "summary.json").write_text("{")
    assert "evaluation/summary.json is damaged" in write(folder).read_text()


def test_what_has_no_room_is_named(folder, monkeypatch):
    monkeypatch.setattr(pictures, "STRUCTURE_BYTES", 40 * 24 + 10)
    monkeypatch.setattr(pictures, "PATH_BYTES", 0)
    designs = listed(write(folder))
    assert [name for name, design in designs.items() if "structure" in design] == ["len40_0"]
    assert designs["len40_0"]["structure"]["paths"] == []
    text = (folder / "report.html").read_text()
    assert "not drawn: a page holds" in text and "len24_0, len20+12_0" in text
    assert "without their way from noise" in text
    monkeypatch.setattr(pictures, "DESIGNS", 1)
    assert "3 further designs" in write(folder).read_text()


def test_long_ways_are_thinned_and_keep_their_ends(folder, monkeypatch):
    monkeypatch.setattr(pictures, "FRAMES", 4)
    (path, _) = listed(write(folder))["len24_0"]["structure"]["paths"]
    assert path["chosen"] == [0, 2, 4, 6] and path["models"] == 7
    assert path["sequences"][0] == "X" * 24 and len(path["sequences"]) == 4


def test_a_report_that_cannot_be_written(folder):
    (folder / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report\.html: cannot be written"):
        write(folder)
    assert not list(folder.glob(".report*"))


@pytest.mark.slow
def test_a_thousand_designs_take_seconds_and_few_megabytes(tmp_path):
    random = np.random.default_rng(0)
    atom37, records = made_run.design([60]), []
    for place in range(1000):
        file = f"structures/len60_{place}.pdb"
        aatypes = random.integers(0, 20, 60)
        write_pdb(tmp_path / file, atom37, aatypes, np.ones(60, int), np.arange(1, 61), np.full(60, 50.0))
        records.append(made_run.record(f"len60_{place}", 60, {"A": 60}, files={file: ""}, sequence="A" * 60))
    made_run.write_manifest(tmp_path, records)
    began = time.process_time()
    path = write(tmp_path)
    assert time.process_time() - began < 20  # 5 on an idle core
    assert path.stat().st_size < 5e6
    assert sum("structure" in design for design in told(path)["designs"]) == 1000


def test_a_name_that_looks_like_a_formula_has_its_row(tmp_path):
    write_pdb(tmp_path / "=one.pdb", made_run.design([8]), np.zeros(8, int), np.ones(8, int), np.arange(1, 9))
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "designs.csv").write_text("id,clashes\n'=one,2.5\n")
    assert listed(write(tmp_path))["=one"]["values"] == [2.5]
