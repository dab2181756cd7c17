"""The real train.py, killed with SIGKILL in mid-epoch while data workers read ahead, ends as if it had not been."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from app.training.run import train
from tests.training import runs
from tests.training.runs import arguments, assert_same_weights, rows

LIMIT = 300  # seconds


def wait_for(step: int, out: Path, process: subprocess.Popen) -> None:
    """Until metrics.csv has a line of that step."""
    deadline = time.monotonic() + LIMIT
    while not (out / "metrics.csv").exists() or not rows(out) or int(rows(out)[-1]["step"]) < step:
        assert process.poll() is None, f"it ended before step {step}: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def killed_at(steps: tuple[int, ...], out: Path, made: list[str]) -> None:
    """Start the run that `made` describes, kill it at each of the steps, and let it come to its end."""
    command = [*made, f"out={out}"]
    for step in steps:
        with runs.in_own_process(*command) as process:
            wait_for(step, out, process)
            process.send_signal(signal.SIGKILL)
        assert runs.checkpoint(out)["global_step"] < 10**6  # whole, whenever it was killed
        command = [f"resume={out / 'checkpoints' / 'last.ckpt'}"]
    with runs.in_own_process(*command) as process:
        said, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, said + error


@pytest.mark.slow
def test_killed_once(tmp_path):
    settings = ("trainer.max_steps=60", "trainer.checkpoint_every=2", "trainer.log_every=1")
    made = arguments(tmp_path, *settings)
    train([*made, f"out={tmp_path / 'whole'}"])
    killed_at((9,), tmp_path / "killed", [*made, "data.loader.num_workers=2"])
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_killed_at_several_steps_on_real_structures(tmp_path, shared, accumulate):
    made = [
        *runs.MODEL,
        "data=structures",
        f"data.path={shared / 'structures'}",
        f"data.cache_dir={tmp_path / 'cache'}",
    ]
    made += ["data.max_length=130", "data.loader.num_workers=2", "data.loader.max_batch_size=2", "trainer=cpu"]
    made += [f"trainer.accumulate={accumulate}", "trainer.checkpoint_every=3", "trainer.log_every=2"]
    made += [f"trainer.max_steps={40 // accumulate}"]
    with runs.in_own_process(*made, f"out={tmp_path / 'whole'}") as process:
        said, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, said + error
    killed_at(tuple(step // accumulate for step in (8, 16, 26)), tmp_path / "killed", made)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")
    assert len(rows(tmp_path / "whole")) == 20 // accumulate


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_reaches_the_workers_too(tmp_path, number):
    """Ctrl-C at a terminal and schedulers' go to every process of the run; the step under way is saved all the same."""
    out = tmp_path / "stopped"
    made = arguments(tmp_path, "trainer.log_every=1", "trainer.accumulate=3", "data.loader.num_workers=2")
    with runs.in_own_process(*made, f"out={out}", start_new_session=True) as process:
        wait_for(5, out, process)
        os.killpg(process.pid, number)
        said, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + number, said + error
    assert error.count("stopping after this step") == 1 and "Traceback" not in error
    step = runs.checkpoint(out)["global_step"]
    assert said.splitlines()[-1].startswith(f"interrupted at step {step}; go on by: python train.py resume=")
    train([*made, f"trainer.max_steps={step}", f"out={tmp_path / 'whole'}"])
    assert_same_weights(tmp_path / "whole", out)
