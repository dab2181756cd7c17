"""Runs that end before their time, and folders that are not theirs alone: all is accounted for, and they go on."""

import json
import multiprocessing
import os
import signal

import pytest
import torch

from app.errors import UserError
from app.files.lock import Lock
from app.sampling.interrupt import Interrupted
from app.sampling.results import NOT_RUN
from tests.sampling.made_inputs import UNCONDITIONAL
from tests.sampling.runs import Counting
from tests.training.runs import files


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


def test_a_first_manifest_that_cannot_be_written_leaves_the_folder_free(again, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_room)
        with pytest.raises(UserError, match=r"manifest.json: cannot be written \(No space left on device\)"):
            again()
    assert again(seed=4)[1]["done"] == 4
