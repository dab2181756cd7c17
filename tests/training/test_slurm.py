"""Under SLURM: a job that is told to end saves, is queued again, and goes on when it is started again."""

import os
import signal

import pytest

from app.training import slurm
from app.training.run import train
from tests.training import runs
from tests.training.runs import arguments, assert_same_weights, files, rows

JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "fold", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}
TASK = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.fixture(autouse=True)
def _handler():
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """What `scontrol` was called with, a line a call."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    calls, command = tmp_path / "calls", tmp_path / "bin" / "scontrol"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    command.chmod(0o755)
    calls.touch()
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return calls


def in_job(monkeypatch, **more):
    for name, value in {**JOB, **TASK, **more}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("number", "more", "queued"),
    [
        (signal.SIGUSR1, {}, ["requeue 4711"]),
        (signal.SIGUSR1, {"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3"}, ["requeue 4700_3"]),
        # a person at a shell in an allocation
        pytest.param(signal.SIGUSR1, {"SLURM_JOB_NAME": "bash"}, [], marks=pytest.mark.slow),
        # scancel, or SLURM's own preemption, which queues it by itself
        pytest.param(signal.SIGTERM, {}, [], marks=pytest.mark.slow),
    ],
)
def test_a_job_goes_on_by_the_same_command(tmp_path, monkeypatch, queue, number, more, queued, capsys):
    made = arguments(tmp_path, "trainer.max_steps=6", "trainer.checkpoint_every=4", "trainer.log_every=4")
    train([*made, f"out={tmp_path / 'whole'}"])
    command, out = [*made, f"out={tmp_path / 'out'}"], tmp_path / "out"
    in_job(monkeypatch, **more)
    with monkeypatch.context() as patch:
        runs.crash_at(2, patch, lambda: os.kill(os.getpid(), number))
        assert train(command) == 128 + number
    assert queue.read_text().splitlines() == queued
    assert runs.checkpoint(out)["global_step"] == 3
    assert not [name for name in files(out) if "hpc" in name], "Lightning saves nothing of its own"
    if queued:
        assert "the job is queued again" in capsys.readouterr().out
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert train([*command, *([] if queued else ["resume=auto"])]) == 0
    assert_same_weights(tmp_path / "whole", out)
    assert rows(tmp_path / "whole") == rows(out)


def test_a_job_that_is_told_to_end_before_it_trains_is_queued_again(tmp_path, monkeypatch, queue):
    in_job(monkeypatch)
    monkeypatch.setattr("app.training.run.build_module", lambda plan: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(SystemExit) as end:
        train(arguments(tmp_path, f"out={tmp_path / 'out'}"))
    assert end.value.code == 128 + signal.SIGUSR1
    assert queue.read_text().splitlines() == ["requeue 4711"]
    assert not (tmp_path / "out").exists()


def test_outside_of_slurm_the_same_signal_saves_and_ends(tmp_path, monkeypatch, queue):
    with monkeypatch.context() as patch:
        runs.crash_at(2, patch, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert train(arguments(tmp_path, f"out={tmp_path / 'out'}")) == 128 + signal.SIGUSR1
    assert runs.checkpoint(tmp_path / "out")["global_step"] == 3
    assert queue.read_text() == ""


def test_schedulers_repeat_themselves(tmp_path, monkeypatch):
    def remind():
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        runs.crash_at(2, patch, remind)
        train(arguments(tmp_path, f"out={tmp_path / 'out'}"))
    assert runs.checkpoint(tmp_path / "out")["global_step"] == 3


@pytest.mark.parametrize(("number", "queued"), [(signal.SIGUSR1, ["requeue 4711"]), (signal.SIGTERM, [])])
def test_sigterm_while_the_run_reports_cuts_nothing_short(tmp_path, monkeypatch, queue, number, queued, capsys):
    """As SLURM sends it after SIGUSR1, and torchrun to the ranks that are left when one has ended."""
    in_job(monkeypatch)
    hit = []
    before = signal.signal(signal.SIGTERM, lambda *_: hit.append("would have ended the run"))
    monkeypatch.setattr("app.training.run_report._draw", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with monkeypatch.context() as patch:
            runs.crash_at(2, patch, lambda: os.kill(os.getpid(), number))
            assert train(arguments(tmp_path, f"out={tmp_path / 'out'}")) == 128 + number
        assert queue.read_text().splitlines() == queued and not hit
        assert "interrupted at step 3; go on by" in capsys.readouterr().out
        os.kill(os.getpid(), signal.SIGTERM)
        assert hit, "what signals do is as it was before the run"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_branch_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path, monkeypatch, queue):
    made = arguments(tmp_path, "trainer.checkpoint_every=4")
    train([*made, "trainer.max_steps=4", f"out={tmp_path / 'trunk'}"])
    start = f"resume={tmp_path / 'trunk' / 'checkpoints' / 'last.ckpt'}"
    command = [start, "trainer.max_steps=9", f"out={tmp_path / 'branch'}"]
    in_job(monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(runs.Crash):
        runs.crash_at(5, patch)
        train(command)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    train(command)
    train([*made, "trainer.max_steps=9", f"out={tmp_path / 'whole'}"])
    assert_same_weights(tmp_path / "whole", tmp_path / "branch")


def test_a_failing_scontrol_is_told(monkeypatch, queue, capsys):
    in_job(monkeypatch)
    (queue.parent / "bin" / "scontrol").write_text("#!/bin/sh\necho Invalid job id >&2; exit 1\n")
    slurm.requeue()
    assert "scontrol requeue 4711: failed, Invalid job id; submit the job again" in capsys.readouterr().out
    monkeypatch.setenv("PATH", "")
    slurm.requeue()
    assert "failed, No such file" in capsys.readouterr().out
