"""The same command again in the same folder: what is there is verified, and what is missing is made."""

import json
import multiprocessing
import os
import signal
from hashlib import sha256

import pytest
import torch

from app.errors import UserError
from app.files.lock import Lock
from app.sampling.interrupt import Interrupted
from app.sampling.journal import Journal
from app.sampling.manifest import write
from app.sampling.results import NOT_RUN
from app.sampling.seal import sealed
from tests.factories import tiny_model
from tests.sampling.made_inputs import STEPS, UNCONDITIONAL, write_structure
from tests.training.runs import files

IDS = ["len9_0", "len9_1", "len14_0", "len14_1"]


class Counting:
    """The model; the shapes of its batches."""

    def __init__(self, at_call=None, do=None):
        self.model, self.calls, self.sizes = tiny_model(), 0, []
        self.at_call, self.do = at_call, do

    def __call__(self, batch):
        self.calls += 1
        if self.calls == self.at_call:
            self.do()
        if self.calls % STEPS == 1:
            self.sizes.append(tuple(batch.res_mask.shape))
        return self.model(batch)


@pytest.fixture
def again(run, tmp_path):
    """The same run in the same folder -> (what the model was shown, manifest)."""

    def go(model=None, **changes):
        model = model or Counting()
        _, manifest = run(model, **UNCONDITIONAL | {"out": tmp_path / "out"} | changes)
        return model, manifest

    return go


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 4}, "seed: 3 -> 4"),
        ({"steps": 7, "seed": 4}, "steps: 6 -> 7; seed: 3 -> 4"),
        ({"lengths": [9, 15]}, "lengths.1: 14 -> 15"),
        ({"samples_per_length": 3}, "samples_per_length: 2 -> 3"),
        ({"precision": "bfloat16"}, "precision: float32 -> bfloat16"),
    ],
)
def test_a_changed_setting_is_refused_with_the_difference(again, tmp_path, changes, told):
    again()
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match="holds a run that was asked for something else") as caught:
        again(**changes)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_a_changed_sampler_or_checkpoint_is_refused(run, tmp_path):
    for name, text in {"a": "one", "b": "other", "moved": "one"}.items():
        (tmp_path / name).write_text(text)
    asked = UNCONDITIONAL | {"out": tmp_path / "out"}
    run(**asked, ckpt=tmp_path / "a")
    with pytest.raises(UserError, match=r"ckpt: sha256 [0-9a-f]{16} -> sha256 [0-9a-f]{16}"):
        run(**asked, ckpt=tmp_path / "b")
    with pytest.raises(UserError, match=r"sampler.name: euler -> multiflow_legacy"):
        run(sampler="multiflow_legacy", **asked, ckpt=tmp_path / "a")
    _, manifest = run(**asked, ckpt=tmp_path / "moved")
    assert manifest["done"] == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"max_batch_size": 1, "max_residues_squared": 300, "progress_bar": True, "report": False},
        {"cuda_graph": False, "device": "cpu", "precision": "auto", "temperature": 0.1},
    ],
)
def test_what_cannot_change_a_design_may_change(again, changes):
    _, first = again()
    model, second = again(**changes)
    assert model.calls == 0 and second["designs"] == first["designs"]


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


def test_inputs_count_by_their_content(run, tmp_path):
    write_structure(tmp_path / "in/one.pdb", 9)
    write_structure(tmp_path / "in/two.pdb", 9, seed=1)
    asked = {"task": "inverse_folding", "out": tmp_path / "out"}
    _, first = run(**asked, input=tmp_path / "in")
    assert first["inputs"].keys() == {"one.pdb", "two.pdb"}
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    model = Counting()
    run(model, **asked, input=tmp_path / "elsewhere")
    assert model.calls == 0
    write_structure(tmp_path / "elsewhere/two.pdb", 9, seed=2)
    with pytest.raises(UserError, match=r"input two.pdb: sha256 [0-9a-f]{16} -> sha256 [0-9a-f]{16}"):
        run(**asked, input=tmp_path / "elsewhere")
    (tmp_path / "elsewhere/two.pdb").unlink()
    with pytest.raises(UserError, match=r"input two.pdb: sha256 [0-9a-f]{16} -> \(absent\)"):
        run(**asked, input=tmp_path / "elsewhere")


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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"format": 1, "designs": []}', "older run, without hashes"),
        ('{"format": 9}', "no manifest of this program, or of a later version"),
        ('{"format": 2, "designs": []}', "older run, without hashes"),
        ('{"format": 3, "designs": []}', "a part of it is missing"),
        ('{"format": 3', "no JSON: it was cut off or altered"),
        ("[]", "no manifest of this program"),
    ],
)
def test_other_manifests_are_refused(again, tmp_path, text, told):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text(text)
    with pytest.raises(UserError, match=told):
        again()
    assert files(tmp_path / "out") == {"manifest.json"}


def test_a_manifest_that_was_altered_is_not_believed(again, tmp_path):
    """Nothing outside the folder is looked at or touched, and no record stands that does not fit its design, not even
    if it is sealed."""
    _, first = again()
    outside = tmp_path / "outside.pdb"
    outside.write_text("mine")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    manifest["designs"][0]["files"]["../outside.pdb"] = "0" * 64
    manifest["designs"][1] |= {"seed": 1}
    manifest["designs"][2] |= {"files": "all"}
    manifest["designs"][3].pop("sequence")
    manifest["designs"] = [sealed(record) for record in manifest["designs"]]
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    model, second = again()
    assert sorted(model.sizes) == [(1, 9), (2, 14)]
    assert second["designs"] == first["designs"]
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("harm", ["cut", "zeros", "altered", "removed"])
def test_a_manifest_that_is_damaged_or_lost_is_made_again(again, tmp_path, harm):
    _, first = again()
    path = tmp_path / "out/manifest.json"
    whole = path.read_bytes()
    if harm == "removed":
        path.unlink()
    else:
        cut = {"cut": whole[:-40], "zeros": b"\0" * len(whole), "altered": whole.replace(b'"steps": 6', b'"steps": 7')}
        path.write_bytes(cut[harm])
    model, second = again()
    assert model.calls == 0 and second["designs"] == first["designs"]
    path.unlink()
    with pytest.raises(UserError, match="seed: 3 -> 4"):
        again(seed=4)
    (tmp_path / "out/.manifest.json").unlink()
    with pytest.raises(UserError, match="which would be mixed up with this run"):
        again()


def test_a_folder_that_was_emptied_takes_another_run(again, tmp_path):
    out = tmp_path / "out"
    again(lengths=[9])
    for name in files(out) - {".manifest.json"}:
        (out / name).unlink()
    (out / "structures").rmdir()
    assert again(lengths=[9], seed=4)[1]["done"] == 2


@pytest.mark.parametrize(
    "change",
    [{"sequence": "W" * 9}, {"sequence": None}, {"designed": {}}, {"flags": None}, {"id": "mine"}, {"sha256": None}, 7],
)
def test_a_record_that_was_altered_is_not_believed(again, tmp_path, change):
    _, first = again()
    before = (tmp_path / "out/sequences.fasta").read_text()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    manifest["designs"][0] = change if isinstance(change, int) else manifest["designs"][0] | change
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    model, second = again()
    assert model.sizes == [(1, 9)]
    assert second["designs"] == first["designs"] and (tmp_path / "out/sequences.fasta").read_text() == before


def _hold(folder, held):
    lock = Lock(folder, doing="designing")
    lock.take()
    held.set()
    signal.pause()


def test_two_processes_do_not_share_a_folder(again, tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "out", held))
    process.start()
    held.wait()
    try:
        with pytest.raises(UserError, match=rf"process {process.pid} on .* is designing into it: wait for its end"):
            again()
        assert files(tmp_path / "out") == {".lock"}
    finally:
        process.kill()
        process.join()
    assert again()[1]["done"] == 4  # a killed one's lock is gone


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_signals_end_a_run_with_all_accounted_for(again, run, tmp_path, number, status):
    model = Counting(8, lambda: os.kill(os.getpid(), number))  # in the second batch
    handlers = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        again(model)
    assert caught.value.status == status and signal.getsignal(number) is handlers
    assert model.calls == 8, "the model call under way is the last"
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["requested"], manifest["done"], manifest["failed"]) == (4, 2, 2)
    assert manifest["designs"][3]["error"] == "not run: interrupted"
    assert again()[1]["designs"] == run(**UNCONDITIONAL)[1]["designs"]


def test_a_second_ctrl_c_ends_at_once(again, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(Interrupted):
        again(Counting(8, twice))
    assert json.loads((tmp_path / "out/manifest.json").read_text())["failed"] == 2


def no_room(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_ends_the_run_and_leaves_what_was_true(again, run, tmp_path, monkeypatch):
    """Not even a failure can be written down then. With room again, the same command makes what is missing."""
    real = os.write
    with monkeypatch.context() as patch:
        cut = iter([False, True])  # one record whole, of the next a part

        def write(file, line):
            return (real(file, line[:40]), no_room()) if next(cut, True) else real(file, line)

        patch.setattr(os, "write", write)
        with pytest.raises(UserError, match=r"out: cannot be written \(No space left on device\): make room"):
            again(max_batch_size=1)
    lines = (tmp_path / "out/manifest.json").read_text()
    manifest = json.loads(lines)
    assert (manifest["requested"], manifest["done"], manifest["failed"]) == (4, 1, 3)
    assert len(files(tmp_path / "out/structures")) == 2
    assert again()[1]["designs"] == run(**UNCONDITIONAL)[1]["designs"]


def test_a_manifest_that_cannot_be_written_leaves_the_journal(again, run, tmp_path, monkeypatch):
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if (
            str(target).endswith("manifest.json") and sum(str(one).endswith("manifest.json") for one in calls) > 2
        ):  # with its copy
            no_room()
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(UserError, match=r"manifest.json: cannot be written \(No space left on device\)"):
            again()
    left = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (left["requested"], left["done"], left["failed"]) == (4, 0, 4), "true at any moment"
    assert {record["error"] for record in left["designs"]} == {NOT_RUN}
    model, manifest = again()
    assert manifest["designs"] == run(**UNCONDITIONAL)[1]["designs"]
    assert not (tmp_path / "out/.journal-0.jsonl").exists()
    assert sum(size for size, _ in model.sizes) < 4
    assert torch.is_grad_enabled()
