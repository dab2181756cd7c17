"""`resume=auto`: one command that begins a run, goes on with it, and takes the newest checkpoint that verifies."""

import errno
import subprocess
import sys

import pytest
import torch

from app.errors import UserError
from app.training.auto_resume import AUTO
from app.training.run import build_module, train
from tests.training import runs
from tests.training.runs import Crash, arguments, assert_same_weights, data, rows

SETTINGS = ("trainer.max_steps=8", "trainer.checkpoint_every=2", "trainer.log_every=3")


@pytest.fixture
def made(tmp_path):
    return arguments(tmp_path, *SETTINGS, "resume=auto")


def crash(command, batch, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Crash):
        runs.crash_at(batch, patch)
        train(command)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # last.ckpt is another name of the same file
    path.write_bytes(content)


def test_the_same_command_begins_goes_on_and_has_ended(tmp_path, made, monkeypatch, capsys):
    train([*made, f"out={tmp_path / 'whole'}"])
    command = [*made, f"out={tmp_path / 'out'}"]
    crash(command, 1, monkeypatch)  # before the first checkpoint
    crash(command, 5, monkeypatch)
    assert train(command) == 0
    assert "resuming" in capsys.readouterr().out
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
    assert rows(tmp_path / "whole") == rows(tmp_path / "out")
    (tmp_path / "out" / ".machine.yaml.1.tmp").touch()  # killed after the last checkpoint
    assert train(command) == 0
    assert "the run ended at step 8" in capsys.readouterr().out
    assert not list((tmp_path / "out").rglob(".*.tmp"))


def test_damaged_ones_are_passed_over_by_name(tmp_path, made, monkeypatch, capsys):
    train([*made, f"out={tmp_path / 'whole'}"])
    command, checkpoints = [*made, f"out={tmp_path / 'out'}"], tmp_path / "out" / "checkpoints"
    crash(command, 7, monkeypatch)
    flip(checkpoints / "last.ckpt")
    (checkpoints / "step-000006.ckpt").write_bytes((checkpoints / "step-000006.ckpt").read_bytes()[:-5])
    capsys.readouterr()
    train(command)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"passed over {checkpoints / 'last.ckpt'}: damaged, it does not match the checksum")
    assert said[1].startswith(f"passed over {checkpoints / 'step-000006.ckpt'}: damaged, its end is missing")
    assert f"resuming {checkpoints / 'step-000004.ckpt'}: epoch 0, step 4" in said
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
    assert rows(tmp_path / "whole") == rows(tmp_path / "out")
    names = {path.name for path in checkpoints.iterdir()}
    assert names == {"last.ckpt", *(f"step-00000{step}.ckpt" for step in (4, 6, 8)), "step-000006.ckpt.damaged"}


def test_an_older_last_does_not_hide_a_newer_one(tmp_path, made, monkeypatch, capsys):
    command, checkpoints = [*made, f"out={tmp_path / 'out'}"], tmp_path / "out" / "checkpoints"
    crash(command, 7, monkeypatch)
    older = (checkpoints / "step-000004.ckpt").read_bytes()
    (checkpoints / "last.ckpt").unlink()
    (checkpoints / "last.ckpt").write_bytes(older)
    assert train(command) == 0
    assert f"resuming {checkpoints / 'step-000006.ckpt'}: epoch 0, step 6" in capsys.readouterr().out
    assert not list(checkpoints.glob("*.damaged"))


def test_one_that_cannot_be_read_now_is_not_damaged(tmp_path, made, monkeypatch):
    command, checkpoints = [*made, f"out={tmp_path / 'out'}"], tmp_path / "out" / "checkpoints"
    crash(command, 7, monkeypatch)
    before = {path.name for path in checkpoints.iterdir()}

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("app.training.safe_load.verify", fails)
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be read \(Input/output error\): see to its rights"):
        train(command)
    assert before == {path.name for path in checkpoints.iterdir()}


@pytest.mark.parametrize(
    ("begun", "resume"),
    [
        (True, AUTO),
        pytest.param(False, AUTO, marks=pytest.mark.slow),
        pytest.param(True, "last.ckpt", marks=pytest.mark.slow),
        pytest.param(False, None, marks=pytest.mark.slow),
    ],
)
def test_what_another_wrote_before_the_lock_was_taken_is_left_alone(tmp_path, made, monkeypatch, begun, resume):
    """Another process trains, and is killed, while this one builds its model."""
    command, out = [*made, f"out={tmp_path / 'out'}"], tmp_path / "out"
    other = {None: [text for text in command if text != "resume=auto"], AUTO: command}
    asked = other.get(resume, [f"resume={out / 'checkpoints' / 'last.ckpt'}"])
    if begun:
        crash(command, 5, monkeypatch)
    written = {}

    def build_later(plan):
        monkeypatch.setattr("app.training.run.build_module", build_module)
        crash(command, 7, monkeypatch)
        written.update(content(out))
        return build_module(plan)

    monkeypatch.setattr("app.training.run.build_module", build_later)
    with pytest.raises(UserError, match="another process trained here meanwhile: run the same command again"):
        train(asked)
    assert content(out) == written
    assert (out / "checkpoints" / "step-000006.ckpt").exists()
    assert train(command) == 0


def content(folder):
    """Of all but train.log, in which this process still has its say."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}


def test_a_run_named_by_the_checkpoint_it_begins_from_is_found_again(tmp_path, made, monkeypatch):
    train([*made, f"out={tmp_path / 'first'}"])
    monkeypatch.chdir(tmp_path)
    others = tmp_path / "runs" / "multiflow_legacy"  # the name that a command without a recipe has by default
    others.mkdir(parents=True)
    weights = f"weights={tmp_path / 'first' / 'checkpoints' / 'last.ckpt'}"
    command = [weights, *data(tmp_path), "trainer=cpu", "callbacks.curves=false", *SETTINGS, "resume=auto"]
    crash(command, 3, monkeypatch)
    assert train(command) == 0
    assert runs.checkpoint(tmp_path / "runs" / "tiny")["global_step"] == 8
    assert not list(others.iterdir())


def test_where_none_verifies_nothing_is_begun_anew(tmp_path, made, monkeypatch):
    command, checkpoints = [*made, f"out={tmp_path / 'out'}"], tmp_path / "out" / "checkpoints"
    crash(command, 5, monkeypatch)
    for path in checkpoints.iterdir():
        flip(path)
    before = {path: path.read_bytes() for path in checkpoints.iterdir()}
    with pytest.raises(UserError, match=r"none of its checkpoints can be used.*last\.ckpt.*step-000004.*step-000002"):
        train(command)
    assert before == {path: path.read_bytes() for path in checkpoints.iterdir()}


def test_a_newer_trunklines_is_not_passed_over(tmp_path, made, monkeypatch):
    command, last = [*made, f"out={tmp_path / 'out'}"], tmp_path / "out" / "checkpoints" / "last.ckpt"
    crash(command, 5, monkeypatch)
    saved = torch.load(last, weights_only=True)
    saved["trunkline"]["format"] += 1
    torch.save(saved, last)
    with pytest.raises(UserError, match="newer Trunkline"):
        train(command)


def test_what_is_typed_again_changes_the_run_and_other_models_are_refused(tmp_path, made, monkeypatch, capsys):
    out = f"out={tmp_path / 'out'}"
    crash([*made, out], 1, monkeypatch)
    with pytest.raises(UserError, match=r"no checkpoint yet, begun with seed=123, not 4: type what it was begun with"):
        train([*made, "seed=4", out])
    with pytest.raises(UserError, match="begun with"):
        train(["resume=auto", out])
    crash([*made, out], 5, monkeypatch)
    train(["resume=auto", "trainer.max_steps=5", out])  # the checkpoint says the rest
    assert "trainer.max_steps: 8 -> 5" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"model\.c_s=32 contradicts"):
        train([text.replace("c_s=16", "c_s=32") for text in [*made, out]])


def test_it_takes_no_folder_that_is_another_s(tmp_path, made):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="holds another run"):
        train([*made, f"out={tmp_path / 'out'}"])


HOLD = """
import sys
from pathlib import Path
from app.files.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
input()
lock.release()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no record locks")
def test_an_ended_run_with_which_another_process_goes_on_is_left_alone(tmp_path, made, monkeypatch):
    command, out = [*made, f"out={tmp_path / 'out'}"], tmp_path / "out"
    train(command)
    (out / "checkpoints" / ".last.ckpt.1.tmp").touch()  # half-written by the other
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], env=runs.one_thread(), **pipes) as other:
        assert other.stdout.readline()
        before = content(out)
        with pytest.raises(UserError, match=rf"process {other.pid} on .* is training into it"):
            train(command)
        assert content(out) == before
        other.communicate(b"\n")

    def announce(*_):
        (out / "checkpoints" / "step-000009.ckpt").touch()

    monkeypatch.setattr("app.training.run.announce", announce)
    before = content(out)
    with pytest.raises(UserError, match="another process trained here meanwhile"):
        train(command)
    assert before.items() < content(out).items()


@pytest.mark.slow
def test_weights_are_for_the_beginning(tmp_path, made, monkeypatch):
    train([*made, f"out={tmp_path / 'first'}"])
    warm = [*made, f"weights={tmp_path / 'first' / 'checkpoints' / 'last.ckpt'}"]
    train([*warm, f"out={tmp_path / 'whole'}"])
    crash([*warm, f"out={tmp_path / 'out'}"], 1, monkeypatch)
    crash([*warm, f"out={tmp_path / 'out'}"], 5, monkeypatch)
    train([*warm, f"out={tmp_path / 'out'}"])
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
