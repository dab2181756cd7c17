"""`python -m app data fetch`, without a network."""

import io

import pytest
import requests
from biotite.database import RequestError, rcsb
from typer.testing import CliRunner

from app.__main__ import cli
from app.data.fetch import fetch
from app.errors import UserError

TEXT = "data_1UBQ\n_atom_site.id 1\n"


@pytest.fixture
def archive(monkeypatch):
    """Stands for the RCSB; what is asked of it is noted in `asked`. An entry that is an exception is raised."""
    entries = {"1ubq": TEXT, "2kl8": TEXT}
    asked = []

    def answer(entry, file_format):
        asked.append((entry, file_format))
        if entry not in entries:
            raise RequestError(f"PDB ID {entry} is invalid")
        if isinstance(entries[entry], Exception):
            raise entries[entry]
        return io.StringIO(entries[entry])

    monkeypatch.setattr(rcsb, "fetch", answer)
    return entries, asked


def test_downloads_and_keeps_what_is_there(archive, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "2KL8.pdb.gz").write_text("mine")
    downloaded, kept = fetch(["1UBQ", "2kl8", "1ubq"], folder)
    assert downloaded == [folder / "1ubq.cif"] and kept == [folder / "2KL8.pdb.gz"]
    assert archive[1] == [("1ubq", "cif")] and (folder / "1ubq.cif").read_text() == TEXT
    assert fetch(["1ubq"], folder) == ([], [folder / "1ubq.cif"]) and len(archive[1]) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["1ubq.cif", "2KL8.pdb.gz"]


@pytest.mark.parametrize("wrong", ["ubq", "1ub/", "../1ubq", "1ubq.cif", "0ubq", "1ubqq", ""])
def test_ids_that_are_none_are_refused_before_anything_happens(archive, tmp_path, wrong):
    with pytest.raises(UserError, match="not PDB ids"):
        fetch(["1ubq", wrong], tmp_path / "new")
    assert not archive[1] and not (tmp_path / "new").exists()


def test_unknown_entry_is_named_and_the_others_are_there(archive, tmp_path):
    with pytest.raises(UserError, match="9xyz: the RCSB has no such entry"):
        fetch(["9xyz", "1ubq"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["1ubq.cif"]


@pytest.mark.parametrize("failure", [requests.ConnectionError("a\nb"), requests.Timeout(), requests.TooManyRedirects()])
def test_no_network_is_one_line(archive, tmp_path, failure):
    archive[0]["1ubq"] = failure
    with pytest.raises(UserError, match="1ubq: cannot be downloaded, the RCSB cannot be reached") as caught:
        fetch(["1ubq"], tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_an_answer_without_atoms_is_not_kept(archive, tmp_path):
    archive[0]["1ubq"] = "<html>busy</html>"
    with pytest.raises(UserError, match="no atoms"):
        fetch(["1ubq"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_target_that_is_a_file(archive, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: not a folder to write to"):
        fetch(["1ubq"], tmp_path / "file")


def test_command(archive, tmp_path):
    result = CliRunner().invoke(cli, ["data", "fetch", "1ubq", "2kl8", "--to", str(tmp_path)])
    assert result.exit_code == 0 and result.output.count("downloaded") == 2
    result = CliRunner().invoke(cli, ["data", "fetch", "1ubq", "--to", str(tmp_path)])
    assert result.exit_code == 0 and "kept" in result.output
