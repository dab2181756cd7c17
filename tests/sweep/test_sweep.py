"""A sweep on this machine: jobs one after another, each for itself; what ends it, and how it goes on."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import UserError
from app.files.lock import Lock
from app.sweep import local
from app.sweep.jobs import read_sweep
from app.sweep.run import sweep
from app.training.run import train
from tests.training import runs

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture
def stand_in(monkeypatch):
    """No run takes place: `seed=` is the exit status, and `name=` says what else happens."""
    monkeypatch.setattr(local, "TRAIN", STAND_IN)


def started(out: Path) -> set[str]:
    return {path.parent.name for path in out.glob("*/arguments")}


def told(out: Path) -> dict[str, str]:
    return {job["job"]: job["told"] for job in json.loads((out / "sweep.json").read_text())["jobs"]}


def begin(out: Path, *arguments: str) -> int:
    return sweep(["--multirun", "recipe=tiny", "trainer.max_steps=2", f"out={out}", *arguments])


def when(path: Path, do) -> None:
    """Do something in mid-sweep, when a file is there."""

    def wait():
        while not path.exists():
            time.sleep(0.01)
        do()

    threading.Thread(target=wait, daemon=True).start()


def test_a_job_that_fails_stops_no_other(tmp_path, stand_in, capsys):
    assert begin(tmp_path / "s", "seed=0,3", "optimizer.lr=1e-3,1e-4") == 1
    assert told(tmp_path / "s") == {
        "seed-0_lr-0.001": "done", "seed-0_lr-0.0001": "done", "seed-3_lr-0.001": "failed (3)",
        "seed-3_lr-0.0001": "failed (3)",
    }  # fmt: skip
    out = tmp_path / "s" / "seed-3_lr-0.001"
    given = json.loads((out / "arguments").read_text())
    assert given == ["recipe=tiny", "trainer.max_steps=2", "seed=3", "optimizer.lr=0.001", f"out={out}", "resume=auto"]
    shown = capsys.readouterr().out
    assert "job 3 of 4: seed=3 optimizer.lr=0.001" in shown and shown.count("failed (3)") == 2


def test_a_folder_may_have_any_name(tmp_path, stand_in):
    out = tmp_path / "a b=[1]"
    assert begin(out, "seed=0,1") == 1
    assert begin(out, "seed=0,2") == 1
    assert told(out) == {"seed-0": "done", "seed-1": "failed (1)", "seed-2": "failed (2)"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_job_that_runs_and_the_sweep(tmp_path, stand_in, number, capsys):
    out = tmp_path / "s"
    before = signal.getsignal(number)
    when(out / "seed-0" / "waiting", lambda: os.kill(os.getpid(), number))
    assert begin(out, "name=waits", "seed=0,1") == 128 + number
    assert (out / "seed-0" / "signal").read_text() == number.name
    assert told(out) == {"seed-0": f"ended by {number.name}", "seed-1": "not begun"}
    assert started(out) == {"seed-0"} and signal.getsignal(number) == before
    assert "the same command goes on" in capsys.readouterr().out


@contextlib.contextmanager
def hangups(meet: signal.Handlers) -> Iterator[None]:
    """Whether they end a process or, as under nohup, do not: tests may run under it, too."""
    before = signal.signal(signal.SIGHUP, meet)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_hangup_is_the_end_of_the_job_and_the_sweep(tmp_path, stand_in):
    """The job is in a session of its own, which the terminal does not tell."""
    out = tmp_path / "s"
    when(out / "seed-0" / "waiting", lambda: os.kill(os.getpid(), signal.SIGHUP))
    with hangups(signal.SIG_DFL):
        assert begin(out, "name=waits", "seed=0,1") == 128 + signal.SIGHUP
    assert (out / "seed-0" / "signal").read_text() == "SIGTERM"
    assert started(out) == {"seed-0"}


def test_under_nohup_a_sweep_goes_on(tmp_path, stand_in):
    out = tmp_path / "s"
    when(out / "seed-0" / "arguments", lambda: os.kill(os.getpid(), signal.SIGHUP))
    with hangups(signal.SIG_IGN):
        assert begin(out, "name=leaves", "seed=0,1") == 1
    assert told(out) == {"seed-0": "done", "seed-1": "failed (1)"}


HOLD = """
import sys
from pathlib import Path
from app.files.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.take()
input()
"""


def test_nothing_begins_beside_a_job_that_is_still_being_trained(tmp_path, stand_in):
    out = tmp_path / "s"
    command = [sys.executable, "-c", HOLD, str(out / "seed-1")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=runs.ROOT, text=True) as process:
        while process.poll() is None and not Lock(out / "seed-1").holder():
            time.sleep(0.01)
        with pytest.raises(UserError, match=rf"job seed-1: process {process.pid} on .* is training into .*seed-1"):
            begin(out, "seed=0,1")
        assert not started(out)
        process.communicate("\n")
    assert Lock(out / "seed-1").holder() is None
    assert begin(out, "seed=0,1") == 1
    assert started(out) == {"seed-0", "seed-1"}


def test_a_second_sweep_into_the_folder_is_refused(tmp_path, stand_in):
    out, seconds = tmp_path / "s", []

    def second():
        asked = ["--multirun", "recipe=tiny", "trainer.max_steps=2", "name=waits", "seed=0,1", f"out={out}"]
        process = runs.in_own_process(*asked)
        seconds.append((process.communicate(timeout=120)[1], process.returncode))
        os.kill(os.getpid(), signal.SIGTERM)

    when(out / "seed-0" / "waiting", second)
    assert begin(out, "name=waits", "seed=0,1") == 128 + signal.SIGTERM
    ((error, status),) = seconds
    assert status == 2 and re.search(rf"error: .*process {os.getpid()} on .* is running a sweep into it", error), error
    assert told(out) == {"seed-0": "ended by SIGTERM", "seed-1": "not begun"}
    assert not (out / ".lock").exists()


def test_a_job_that_is_killed_is_one_that_failed(tmp_path, stand_in):
    out = tmp_path / "s"

    def kill():
        (process,) = children()
        os.kill(process, signal.SIGKILL)

    when(out / "name-waits" / "waiting", kill)
    assert begin(out, "name=waits,other", "seed=0") == 1
    assert told(out) == {"name-waits": "ended by SIGKILL", "name-other": "done"}


def children() -> list[int]:
    """Of this process, those that are stand-ins."""
    of_all = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for path in of_all for pid in path.read_text().split()]
    return [pid for pid in pids if STAND_IN.name in Path(f"/proc/{pid}/cmdline").read_text()]


def test_nothing_outlives_its_job(tmp_path, stand_in):
    out = tmp_path / "s"
    assert begin(out, "name=leaves,other", "seed=0") == 0
    left = int((out / "name-leaves" / "left").read_text())
    for _ in range(100):
        if not Path(f"/proc/{left}").exists() or " Z " in Path(f"/proc/{left}/stat").read_text():
            return
        time.sleep(0.05)
    pytest.fail("what the job left behind still runs")


@pytest.mark.slow
def test_only_what_is_missing_is_run(tmp_path, monkeypatch, capsys):
    """Real runs: one that has ended, one that has not begun; then with more steps both go on."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out, made = tmp_path / "s", runs.arguments(tmp_path, "seed=1,2", f"out={tmp_path / 's'}")
    first = out / "seed-1"
    train([text for text in read_sweep(made).jobs[0].arguments if text != "resume=auto"] + ["trainer.max_steps=2"])
    saved = (first / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert sweep(["-m", *made, "trainer.max_steps=2"]) == 0
    assert told(out) == {"seed-1": "done", "seed-2": "done"}
    assert (first / "checkpoints" / "last.ckpt").stat().st_mtime_ns == saved
    assert runs.checkpoint(out / "seed-2")["global_step"] == 2
    shown = capsys.readouterr().out
    assert "1 done before" in shown and "job 1 of 2" not in shown and "train_loss" in shown
    monkeypatch.setattr(local, "TRAIN", STAND_IN)  # tells what would be started
    sweep(["-m", *made, "trainer.max_steps=3"])
    assert started(out) == {"seed-1", "seed-2"}


def test_a_run_of_other_settings_is_not_taken_for_the_job(tmp_path, monkeypatch):
    """A real run of two steps, which has ended or goes on: either way it was not trained as is now asked for."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out, made = tmp_path / "s", runs.arguments(tmp_path, "optimizer.lr=1e-3,1e-4", f"out={tmp_path / 's'}")
    first = read_sweep(made).jobs[0]
    train([text for text in first.arguments if text != "resume=auto"] + ["trainer.max_steps=2"])
    monkeypatch.setattr(local, "TRAIN", STAND_IN)
    for changed, said in (("seed=7", "seed=123, not 7"), ("optimizer.weight_decay=0.5", "weight_decay=.*, not 0.5")):
        for steps in (2, 3):
            with pytest.raises(UserError, match=f"job lr-0.001: was trained with .*{said}: choose another out="):
                sweep(["-m", *made, changed, f"trainer.max_steps={steps}"])
    assert not started(out) and not (out / "sweep.json").exists()
    elsewhere = [text for text in made if text != "data.workers=1"]
    assert sweep(["-m", *elsewhere, "trainer.max_steps=2", "trainer.log_every=1", "kernels=reference"]) == 0
    assert started(out) == {"lr-0.0001"}
