"""A sweep on SLURM, of which a stand-in (`fake_slurm.py`) writes down what it is asked for, and runs it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.errors import UserError
from app.sweep import slurm
from app.sweep.jobs import read_sweep
from app.sweep.report import Standing
from app.sweep.run import sweep
from app.training.recipe import TrainerSettings
from tests.sweep import fake_slurm
from tests.sweep.test_sweep import STAND_IN, told
from tests.training import runs

ON_SLURM = "hydra/launcher=submitit_slurm"


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "cluster"
    for name, value in fake_slurm.install(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fake_slurm, "HERE", folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def settings(*typed: str, **trainer) -> dict:
    made = TrainerSettings(**{"accelerator": "gpu", "devices": 1, **trainer})
    return slurm.settings_of([ON_SLURM, *(f"hydra.launcher.{text}" for text in typed)], Path("runs/s"), [made])


def script(monkeypatch, cluster: Path, out: Path, **settings_) -> str:
    """The submission script for two jobs; nothing is run."""
    (cluster / "bin" / "sbatch").write_text(
        f'#!/bin/sh\ncp "$1" "{cluster}/script.sh"\necho Submitted batch job 4711\n'
    )
    asked = read_sweep(["seed=1,2", f"out={out}"])
    standings = {job: Standing() for job in asked.jobs}
    slurm.submit(asked, standings, settings_)
    return (cluster / "script.sh").read_text()


def test_tasks_nodes_and_gpus_are_those_of_the_trainer():
    found = settings("partition=gpu", devices=4, num_nodes=2)
    assert (found["nodes"], found["tasks_per_node"], found["gpus_per_node"]) == (2, 4, 4)
    assert found["partition"] == "gpu" and found["name"] == "s"
    assert found["submitit_folder"] == str(Path("runs/s/.submitit/%j").absolute())
    assert settings(accelerator="cpu")["gpus_per_node"] is None
    assert settings("gpus_per_task=1", devices=2)["gpus_per_node"] is None


@pytest.mark.parametrize(
    ("typed", "trainer", "said"),
    [
        (["partiton=gpu"], {}, "hydra.launcher.partiton is unknown: did you mean partition"),
        (["timeout_min=long"], {}, "timeout_min"),
        (["tasks_per_node=2"], {"devices": 4}, "tasks_per_node=2, but trainer.devices=4"),
        (["max_num_timeout=3"], {}, "max_num_timeout has no effect"),
        ([], {"devices": "auto"}, "trainer.devices=auto: say how many"),
    ],
)
def test_bad_input_is_one_error(typed, trainer, said):
    with pytest.raises(UserError, match=r"^[^\n]*$") as refused:
        settings(*typed, **trainer)
    assert said in str(refused.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "app.sweep.slurm")
    monkeypatch.delattr("app.sweep.slurm")
    with pytest.raises(UserError, match=r"submitit is not installed: pip install -e '.\[slurm\]'"):
        sweep(["-m", ON_SLURM, "recipe=tiny", "trainer.max_steps=1", "seed=1,2", "out=s"])


def test_jobs_of_one_sweep_are_of_one_size():
    sizes = [TrainerSettings(devices=count) for count in (1, 2)]
    with pytest.raises(UserError, match="equally many"):
        slurm.settings_of([ON_SLURM], Path("s"), sizes)


def test_the_submission_script(cluster, tmp_path, monkeypatch):
    out = tmp_path / "s"
    typed = ["partition=gpu", "timeout_min=90", "mem_gb=32", "setup=['module load cuda']", "signal_delay_s=200"]
    asked = slurm.settings_of(
        [f"hydra.launcher.{text}" for text in typed], out, [TrainerSettings(accelerator="gpu", devices=2, num_nodes=3)]
    )
    text = script(monkeypatch, cluster, out, **asked)
    assert subprocess.run(["bash", "-n", cluster / "script.sh"], check=False).returncode == 0
    for line in (
        "--array=0-1%2", "--partition=gpu", "--time=90", "--mem=32GB", "--nodes=3", "--ntasks-per-node=2",
        "--gpus-per-node=2", "--signal=USR2@200", "--job-name=s", "--open-mode=append", "--requeue",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert "\nmodule load cuda\n" in text
    (command,) = (line for line in text.splitlines() if line.startswith("srun "))
    assert f"{sys.executable} -u -m submitit.core._submit {out}/.submitit/%j" in command


def test_a_refusal_of_slurms_is_told(cluster, tmp_path, monkeypatch):
    (cluster / "bin" / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: gpu' >&2; exit 1\n")
    asked = read_sweep(["seed=1,2", f"out={tmp_path / 's'}"])
    with pytest.raises(UserError, match=r"does not take the jobs.*invalid partition"):
        slurm.submit(asked, {job: Standing() for job in asked.jobs}, settings())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="srun"):
        slurm.submit(asked, {job: Standing() for job in asked.jobs}, settings())


def test_two_sweeps_do_not_submit_at_once(cluster, tmp_path, submitted, monkeypatch):
    lock, held = tmp_path / "s" / ".lock", []
    submit, wait = slurm.submit, slurm.wait
    monkeypatch.setattr(slurm, "submit", lambda *given: (held.append(lock.exists()), submit(*given))[1])
    monkeypatch.setattr(slurm, "wait", lambda *given: (held.append(lock.exists()), wait(*given))[1])
    sweep(["-m", ON_SLURM, "recipe=tiny", "trainer.max_steps=1", "seed=1,2", f"out={tmp_path / 's'}"])
    assert held == [True, False]


@pytest.fixture
def submitted(monkeypatch) -> list[list[str]]:
    """The jobs of each submission, which the queue then has; waiting for them is given up."""
    calls: list[list[str]] = []

    def submit(jobs, settings):
        calls.append([job.name for job in jobs])
        numbers = [f"{16 + len(calls)}_{index}" for index, _ in enumerate(jobs)]
        for number in numbers:
            fake_slurm.state(number, "PENDING")
        return [slurm.submitit.SlurmJob("x", number) for number in numbers]

    def interrupted(jobs, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "_submitted", submit)
    monkeypatch.setattr(slurm.submitit.helpers, "as_completed", interrupted)
    return calls


def test_ctrl_c_leaves_jobs_in_the_queue_and_none_is_submitted_twice(cluster, tmp_path, submitted, capsys):
    command = ["-m", ON_SLURM, "recipe=tiny", "trainer.max_steps=1", f"out={tmp_path / 's'}"]
    assert sweep([*command, "seed=1,2"]) == 128 + signal.SIGINT
    assert told(tmp_path / "s") == {"seed-1": "in the queue as 17_0", "seed-2": "in the queue as 17_1"}
    fake_slurm.state("17_1", "FAILED")
    assert sweep([*command, "seed=1,2,3"]) == 128 + signal.SIGINT
    assert submitted == [["seed-1", "seed-2"], ["seed-2", "seed-3"]]
    assert list(told(tmp_path / "s").values()) == [f"in the queue as {number}" for number in ("17_0", "18_0", "18_1")]
    assert "the jobs stay in the queue" in capsys.readouterr().out


TASK = """
import sys
from pathlib import Path
from app.sweep import task
task.TRAIN = Path(sys.argv[1])
print("result", task.task(sys.argv[2:]))
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("sent", "arrives"), [(signal.SIGUSR2, "SIGUSR1"), (signal.SIGUSR1, "SIGUSR1"), (signal.SIGTERM, "SIGTERM")]
)
def test_a_task_passes_signals_on_and_has_no_result_then(tmp_path, sent, arrives):
    out = tmp_path / "run"
    command = [sys.executable, "-c", TASK, str(STAND_IN), f"out={out}", "name=waits"]
    process = subprocess.Popen(command, env=runs.one_thread(), stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / "waiting").exists():
        time.sleep(0.01)
    process.send_signal(sent)
    said, _ = process.communicate(timeout=30)
    assert (out / "signal").read_text() == arrives
    assert process.returncode == 128 + signal.Signals[arrives] and "result" not in said


def test_a_tasks_result_is_the_runs_exit_status(tmp_path):
    command = [sys.executable, "-c", TASK, str(STAND_IN), f"out={tmp_path}", "seed=2"]
    done = subprocess.run(command, env=runs.one_thread(), capture_output=True, text=True, check=True)
    assert done.stdout == "result 2\n"


@pytest.mark.slow
def test_two_ranks_train_are_queued_again_and_end(cluster, tmp_path, capsys):
    """Submitted; started by srun as two tasks, which Lightning takes for ranks; told in mid-run that the time is up;
    queued again by train.py, and ended."""
    out, number = tmp_path / "s", os.environ["FAKE_JOB"]
    made = runs.arguments(tmp_path, "seed=1,2", "trainer.max_steps=30", "trainer.checkpoint_every=3")

    def time_is_up():
        while not (out / "seed-1" / "checkpoints" / "last.ckpt").exists():
            time.sleep(0.01)
        for process in (cluster / f"{number}_0.tasks").read_text().split():
            os.kill(int(process), signal.SIGUSR2)

    threading.Thread(target=time_is_up, daemon=True).start()
    spread = ["trainer.strategy=ddp", "trainer.devices=2"]
    assert sweep(["--multirun", ON_SLURM, "hydra.launcher.partition=cpu", *made, *spread, f"out={out}"]) == 0
    assert told(out) == {"seed-1": "done", "seed-2": "done"}
    assert runs.checkpoint(out / "seed-1")["global_step"] == runs.checkpoint(out / "seed-2")["global_step"] == 30
    calls = (cluster / "calls").read_text().splitlines()
    assert calls.count(f"scontrol requeue {number}_0") == 1 and sum(call.startswith("sbatch") for call in calls) == 1
    log = (out / "seed-1" / "train.log").read_text()
    assert "the job is queued again" in log and "resuming" in log and "interrupted" in log
    assert len(runs.rows(out / "seed-1")) == 3
