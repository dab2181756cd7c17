"""The same command again in the same folder: what is there is verified, and what is missing is made."""

import contextlib
import json
import os
import signal
from hashlib import sha256

import pytest

from app.files.seal import sealed
from app.sampling.journal import Journal
from app.sampling.manifest import write
from app.sampling.results import NOT_RUN
from tests.sampling.runs import Counting, contents
from tests.training.runs import files

IDS = ["len9_0", "len9_1", "len14_0", "len14_1"]


def test_a_run_that_is_whole_is_left_as_it_is(again, tmp_path, capsys):
    _, first = again()
    before, times = contents(tmp_path / "out"), {f: f.stat().st_mtime_ns for f in (tmp_path / "out").glob("*/*")}
    model, second = again()
    assert model.calls == 0
    assert second | {"sha256": None} == first | {"earlier": [], "sha256": None}
    after = contents(tmp_path / "out")
    assert {name for name in before if before[name] != after[name]} <= {"manifest.json", ".manifest.json"}
    assert times == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/*")}
    assert "4 of 4 designs are there already" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["altered", "cut", "removed", "emptied", "of another"])
def test_a_damaged_file_is_made_again_and_no_other(again, tmp_path, harm):
    _, first = again()
    before = contents(tmp_path / "out")
    victim = tmp_path / "out/structures/len14_0.cif"
    if harm == "altered":
        victim.write_bytes(victim.read_bytes().replace(b"CA", b"CB", 1))
    elif harm == "cut":
        victim.write_bytes(victim.read_bytes()[:-1])
    elif harm == "removed":
        victim.unlink()
    elif harm == "emptied":
        victim.write_bytes(b"")
    else:
        victim.write_bytes((tmp_path / "out/structures/len14_1.cif").read_bytes())
    kept = (tmp_path / "out/structures/len9_0.pdb").stat().st_mtime_ns
    model, second = again(max_batch_size=1)
    assert model.sizes == [(1, 14)]
    assert second["designs"] == first["designs"]
    after = contents(tmp_path / "out")
    assert {name for name in before if before[name] != after.get(name)} <= {"manifest.json", ".manifest.json"}
    assert (tmp_path / "out/structures/len9_0.pdb").stat().st_mtime_ns == kept


def test_the_fasta_is_written_again(again, tmp_path):
    again()
    before = (tmp_path / "out/sequences.fasta").read_text()
    (tmp_path / "out/sequences.fasta").unlink()
    model, manifest = again()
    assert manifest["files"] == {"sequences.fasta": sha256(before.encode()).hexdigest()}
    assert model.calls == 0 and (tmp_path / "out/sequences.fasta").read_text() == before


def test_what_failed_is_tried_again(again):
    def fail():
        raise RuntimeError("broken")

    _, first = again(Counting(1, fail), max_batch_size=1)
    assert (first["requested"], first["done"], first["failed"]) == (4, 3, 1)
    assert first["designs"][0]["error"] == "RuntimeError: broken"
    model, second = again()
    assert model.sizes == [(1, 9)]
    assert (second["done"], second["failed"], second["designs"][0]["error"]) == (4, 0, None)


def test_more_files_of_the_same_designs_can_be_asked_for(again, tmp_path):
    again(formats=["pdb"])
    before = contents(tmp_path / "out")
    _, more = again(trajectories=True)
    assert contents(tmp_path / "out/structures").keys() == {f"{one}.{kind}" for one in IDS for kind in ("pdb", "cif")}
    assert all((tmp_path / "out" / name).read_bytes() == before[name] for name in before if name.endswith("pdb"))
    assert [len(design["files"]) for design in more["designs"]] == [4] * 4
    (tmp_path / "out/trajectories/len9_0_path.pdb").unlink()
    model, fewer = again()  # it is no longer asked for
    assert model.calls == 0 and [len(design["files"]) for design in fewer["designs"]] == [3, 4, 4, 4]
    model, again_more = again(step_records=True)  # for which all are made again
    assert model.calls > 0 and [len(design["files"]) for design in again_more["designs"]] == [4, 5, 5, 5]
    assert again(step_records=True, trajectories=True)[1]["designs"][1] == again_more["designs"][1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_files_that_a_design_has_are_known_whatever_happens_while_it_gets_more(again, tmp_path, number):
    again(formats=["pdb"])
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            again(Counting(8, lambda: os.kill(os.getpid(), number)), formats=["mmcif"])
        os._exit(0)
    os.waitpid(child, 0)
    _, more = again(formats=["mmcif"])
    both = [{f"structures/{one}.{kind}" for kind in ("pdb", "cif")} for one in IDS]
    assert [set(design["files"]) for design in more["designs"]] == both
    assert not any("kept" in design for design in more["designs"])
    model, _ = again(formats=["pdb"])
    assert model.calls == 0


def rewrite(folder, said):
    """A manifest that says something else, and is sealed."""
    write(folder, {key: value for key, value in said.items() if key != "designs"}, said["designs"])


def killed(folder, last_line=b""):
    """What a kill leaves: a manifest as of the start, and a journal."""
    manifest = json.loads((folder / "manifest.json").read_text())
    with Journal(folder, 0) as journal:
        for record in manifest["designs"][:3]:
            journal.add(dict(record))
    for record in manifest["designs"]:
        record |= sealed(record | {"status": "failed", "error": NOT_RUN, "files": {}, "sequence": None})
    rewrite(folder, manifest | {"done": 0, "failed": 4})
    with (folder / ".journal-0.jsonl").open("ab") as file:
        file.write(last_line)
    (folder / "structures/.len14_1.pdb.1.tmp").write_text("half")
    (folder / ".manifest.json.1.tmp").write_text("half")


@pytest.mark.parametrize("last_line", [b"", b'{"id": "len14_1", "status": "do', b"\0" * 50, b"[]\n7\n{}\n"])
def test_what_a_killed_run_had_done_stands(again, tmp_path, last_line):
    _, first = again()
    before = files(tmp_path / "out")
    killed(tmp_path / "out", last_line)
    model, second = again()
    assert model.sizes == [(1, 14)]
    assert second["designs"] == first["designs"]
    assert files(tmp_path / "out") == before


def test_the_machine_that_made_what_stands_is_kept(again, tmp_path):
    _, first = again()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    rewrite(tmp_path / "out", manifest)
    assert again()[1]["versions"]["torch"] == "1.0"  # nothing was made since
    (tmp_path / "out/structures/len9_0.pdb").unlink()
    _, mended = again()
    assert mended["versions"] == first["versions"]
    assert [one["versions"]["torch"] for one in mended["earlier"]] == ["1.0"]
