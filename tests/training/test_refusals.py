"""What cannot be trained on or written to ends in one line, with nothing half-written."""

import errno
import json
import math
import multiprocessing
import signal
import sys
import time

import pytest
import torch
from torch.utils.data._utils import signal_handling

from app.data.structures import StructureDataset
from app.errors import UserError
from app.training.module import CodesignModule
from app.training.run import train
from tests.training import runs
from tests.training.runs import arguments, files


def test_a_folder_of_designs_is_no_place_for_a_run(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="holds another run"):
        train(runs.arguments(tmp_path, "trainer.max_steps=1", f"out={tmp_path / 'out'}"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_folders_that_hold_a_run_or_cannot_are_refused(tmp_path):
    out = tmp_path / "a run's folder"
    train(arguments(tmp_path, "trainer.max_steps=2", "trainer.checkpoint_every=1", f"out={out}"))
    before = {path: (out / path).read_bytes() for path in files(out)}
    last, first = out / "checkpoints" / "last.ckpt", out / "checkpoints" / "step-000001.ckpt"
    again = arguments(tmp_path, "trainer.max_steps=3")
    with pytest.raises(UserError, match=r"holds another run: go on with it by resume='.*last.ckpt', or choose another"):
        train([*again, f"out={out}"])
    with pytest.raises(UserError, match="holds another run"):
        train([*again, f"weights={last}", f"out={out}"])
    with pytest.raises(UserError, match=r"its run went on to step 2: .* another out= .* branches off at step 1"):
        train([f"resume={first}", "trainer.max_steps=3"])
    train([f"resume={first}", "trainer.max_steps=2", f"out={tmp_path / 'branch'}"])
    runs.assert_same_weights(out, tmp_path / "branch")
    with pytest.raises(UserError, match="holds another run"):
        train([f"resume={last}", f"out={tmp_path / 'branch'}"])
    taken = tmp_path / "taken.ckpt"
    taken.write_bytes(last.read_bytes())
    with pytest.raises(UserError, match="not in the folder of a run: say with out=FOLDER"):
        train([f"resume={taken}"])
    with pytest.raises(UserError, match=r"taken\.ckpt is not a folder: choose another out="):
        train([*again, f"out={taken}/run"])
    assert before == {path: (out / path).read_bytes() for path in files(out)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("trainer.max_steps=0", "trainer.max_steps.*0 is no training"),
        ("trainer.max_step=4", "max_step"),
        ("trainer.precision=16", "trainer.precision"),
        ("data.loader.num_workers=-1", "data.loader.num_workers"),
        ("optimizer.lr=0", "optimizer.lr"),
        ("out=null", "out=null: name the run's folder"),
        ("trainer.strategy=warp", "trainer: Lightning refuses.*warp"),
        ("trainer.devices=0", "trainer.devices: give a number of devices"),
        ("weights=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
    ],
)
def test_wrong_settings_leave_nothing_behind(tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        train(arguments(tmp_path, change, *([] if change.startswith("out=") else [f"out={tmp_path / 'out'}"])))
    assert not (tmp_path / "out").exists()


def test_unusable_data_leave_nothing_behind(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, said in (("nowhere", "no such folder"), ("empty", "holds no structure files")):
        made = [text for text in arguments(tmp_path, f"out={tmp_path / 'out'}") if not text.startswith("data.path")]
        with pytest.raises(UserError, match=said):
            train([*made, f"data.path={tmp_path / path}"])
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    out = tmp_path / "out"
    save = torch.save

    def save_once(checkpoint, file):
        if (out / "checkpoints" / "last.ckpt").exists():
            file.write(b"the beginning of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", save_once)
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be written \(No space left on device\)"):
        train(arguments(tmp_path, "trainer.max_steps=4", "trainer.checkpoint_every=1", f"out={out}"))
    monkeypatch.undo()
    assert runs.checkpoint(out)["global_step"] == 1
    assert not list((out / "checkpoints").glob(".*"))
    train([f"resume={out / 'checkpoints' / 'last.ckpt'}"])
    assert runs.checkpoint(out)["global_step"] == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_nan_never_reaches_the_model(tmp_path, monkeypatch, capsys, workers):
    """The example gives way to another, and the run goes on."""
    read = StructureDataset.__getitem__

    def broken(self, index):
        features = read(self, index)
        if features["name"].startswith("made03"):
            features["trans_1"] = features["trans_1"].index_fill(0, torch.tensor([2]), float("nan"))
        return features

    monkeypatch.setattr(StructureDataset, "__getitem__", broken)
    monkeypatch.setattr(CodesignModule, "losses", finite_only(CodesignModule.losses))
    out = f"out={tmp_path / 'out'}"
    train(arguments(tmp_path, "trainer.max_epochs=2", f"data.loader.num_workers={workers}", out))
    assert capsys.readouterr().out.count("dropped made03_A: trans_1 holds NaN or infinite numbers") == 1
    assert runs.checkpoint(tmp_path / "out")["global_step"] == 2 * runs.EPOCH
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["dropped_examples"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="torch hears of it later")
@pytest.mark.parametrize("heard", ["at once", "when its batch is waited for"])
def test_a_killed_data_worker_is_one_error_and_costs_no_more_than_its_steps(tmp_path, monkeypatch, request, heard):
    settings = ("trainer.max_steps=12", "trainer.checkpoint_every=2", "trainer.log_every=1", "resume=auto")
    made = arguments(tmp_path, *settings, "data.loader.num_workers=2")

    def kill():
        multiprocessing.active_children()[0].kill()
        time.sleep(30 if heard == "at once" else 0)

    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(signal.SIGCHLD, before))
    with monkeypatch.context() as patch:
        patch.setattr(signal_handling, "_SIGCHLD_handler_set", heard != "at once")  # torch sets its own if it is not
        runs.crash_at(3, patch, kill)
        with pytest.raises(UserError, match=r"a data worker died.*num_workers=0.*resume=auto") as told:
            train([*made, f"out={tmp_path / 'out'}"])
    assert not multiprocessing.active_children()
    assert (tmp_path / "out" / "train.log").read_text().endswith(f"error: {told.value}\n")
    assert train([*made, f"out={tmp_path / 'out'}"]) == 0
    train([*made, f"out={tmp_path / 'whole'}"])
    runs.assert_same_weights(tmp_path / "out", tmp_path / "whole")
    assert runs.rows(tmp_path / "out") == runs.rows(tmp_path / "whole")


def finite_only(losses):
    def checked(self, batch):
        assert batch.trans_1.isfinite().all() and batch.trans_t.isfinite().all()
        return losses(self, batch)

    return checked


def test_weights_that_are_no_longer_finite_are_not_saved(tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(
        CodesignModule, "on_train_batch_end", lambda self, *_: self.global_step == 3 and spoil(self), raising=False
    )
    with pytest.raises(UserError, match="step 4: the weights are no longer finite"):
        train(arguments(tmp_path, "trainer.max_steps=6", "trainer.checkpoint_every=2", f"out={out}"))
    assert runs.checkpoint(out)["global_step"] == 2


def spoil(module):
    with torch.no_grad():
        next(module.parameters()).fill_(math.nan)
