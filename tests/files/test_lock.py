"""One run at a time in a folder."""

import multiprocessing
import os
import signal
import sys

import pytest

from app.errors import UserError
from app.files.lock import Lock
from app.training.run import train
from tests.training.runs import arguments, files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no record locks")


def _hold(folder, held, leave):
    lock = Lock(folder, doing="designing")
    lock.take()
    multiprocessing.get_context("fork").Process(target=leave.wait, daemon=False).start()  # as a data worker
    held.set()
    signal.pause()


@pytest.fixture
def held(tmp_path):
    """By another process, whose own child outlives it."""
    context = multiprocessing.get_context("spawn")
    there, leave = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "out", there, leave))
    process.start()
    there.wait()
    yield process
    leave.set()
    process.kill()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_second_run_is_refused_before_it_touches_anything(tmp_path, held, has_begun):
    """Not told to remove the folder, as where nobody is at work there."""
    there = {"checkpoints/.last.ckpt.1.tmp", *(["recipe.yaml"] if has_begun else [])}
    (tmp_path / "out" / "checkpoints").mkdir()
    for name in there:
        (tmp_path / "out" / name).touch()
    with pytest.raises(UserError, match=rf"process {held.pid} on .* is designing into it: wait for its end or stop it"):
        train(arguments(tmp_path, "trainer.max_steps=2", f"out={tmp_path / 'out'}"))
    assert files(tmp_path / "out") == {".lock", *there}


def test_a_killed_ones_lock_is_gone_whatever_it_left_running(tmp_path, held):
    os.kill(held.pid, signal.SIGKILL)
    held.join()
    lock = Lock(tmp_path / "out")
    lock.take()
    lock.release()
    assert not files(tmp_path / "out")
