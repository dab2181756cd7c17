"""`python -m app data check`."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from app.__main__ import cli
from app.data.check import check
from app.data.structures_settings import StructuresSettings
from app.errors import UserError
from tests.data.made_structures import write

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "files"
    for length in (20, 30, 45, 50):
        write(folder / f"p{length}.pdb", length)
    (folder / "broken.cif").write_text("data_x\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n1\n")
    (folder / "notes.txt").write_text("")
    return folder


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "check", *map(str, arguments)], env={"COLUMNS": "200"})


def test_report(folder, tmp_path):
    report = check(folder, {"cache_dir": str(tmp_path / "cache"), "min_length": 40})
    assert report.kind == "structures" and report.used == [("p45_A", 45), ("p50_A", 50)] and report.other_files == 1
    assert {name for name, _ in report.dropped} == {"p20_A", "p30_A", "broken"}


def test_command_lists_used_and_dropped_with_reasons_and_counts(folder, tmp_path):
    result = run(folder, "--cache-dir", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    assert "p45_A" in result.output and "used: 2" in result.output and "dropped: 3" in result.output
    (line,) = (line for line in result.output.splitlines() if "shorter than min_length, 40" in line)
    assert " 2 " in line and "p20_A, p30_A" in line
    assert "2 examples of 45 to 50 residues" in result.output and "1 other files" in result.output
    assert str(tmp_path / "cache") not in result.output


def test_options_reach_the_filters(folder, tmp_path):
    assert "used: 4" in run(folder, "--cache-dir", tmp_path / "cache", "--min-length", 10).output
    assert "used: 1" in run(folder / "p20.pdb", "--cache-dir", tmp_path / "cache", "--min-length", 10).output


def test_long_lists_are_cut_unless_asked_for(tmp_path):
    for length in range(40, 90):
        write(tmp_path / "files" / f"p{length}.pdb", length)
    arguments = tmp_path / "files", "--cache-dir", tmp_path / "cache", "--workers", 1
    assert "and 10 more (--all lists them)" in run(*arguments).output
    assert "p89_A" in run(*arguments, "--all").output


def test_nothing_usable_is_an_error_after_the_reasons(folder, tmp_path):
    result = run(folder, "--cache-dir", tmp_path / "cache", "--min-length", 500)
    assert isinstance(result.exception, UserError) and "nothing usable" in str(result.exception)
    assert "shorter than min_length, 500" in result.output


def test_as_a_command_line_program(folder, tmp_path):
    def program(*arguments):
        command = [sys.executable, "-m", "app", "data", "check", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    good = program(folder, "--cache-dir", tmp_path / "cache")
    assert good.returncode == 0 and "used: 2" in good.stdout
    bad = program(tmp_path / "nowhere", "--cache-dir", tmp_path / "cache")
    assert bad.returncode == 2 and bad.stdout == ""
    assert bad.stderr.startswith("error: ") and "nowhere: no such folder" in bad.stderr and bad.stderr.count("\n") == 1


def test_impossible_options_name_the_key(folder):
    result = run(folder, "--min-length", 0)
    assert isinstance(result.exception, UserError) and "data.min_length=0" in str(result.exception)


def test_real_entry(shared, tmp_path):
    report = check(shared / "structures" / "2axd.cif.gz", {"cache_dir": str(tmp_path)})
    assert report.used == [("2axd_S", 76)] and report.notes == [("2axd", "12 models in the file, one read")]


def test_multiflow_data_set(shared):
    result = run(shared / "legacy_multiflow" / "dataset")
    assert result.exit_code == 0 and "used: 5" in result.output and "data=multiflow" in result.output
    refused = run(shared / "legacy_multiflow" / "dataset", "--min-length", 50)
    assert isinstance(refused.exception, UserError) and "min_length is unknown" in str(refused.exception)


def test_recipe_mirrors_the_settings():
    recipe = yaml.safe_load((ROOT / "recipes" / "data" / "structures.yaml").read_text())
    assert recipe.pop("kind") == "structures" and recipe.pop("path") == "???"
    recipe.pop("loader")
    assert recipe.pop("validation") == {"fraction": "auto", "hold_out": [], "seed": 0}
    defaults = StructuresSettings(path="x").model_dump()
    defaults.pop("path")
    without = {"fraction": 0.0, "hold_out": (), "seed": 0}  # what checkpoints of before there was a choice have
    assert defaults.pop("validation") == without
    assert recipe == defaults
