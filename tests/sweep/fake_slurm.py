"""A stand-in for SLURM on one machine: sbatch, srun, sacct, squeue and scontrol as far as a sweep needs them.

Jobs of an array run one after another, each task of a job as a process beside the others, under the variables that
SLURM sets. `$FAKE_SLURM/calls` has every command; `ID.state` how a job stands; `ID.tasks` its tasks' processes.
"""

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

HERE = Path(os.environ.get("FAKE_SLURM", "."))


def install(folder: Path) -> dict[str, str]:
    """Put the commands into `folder`; the environment in which they are found."""
    (folder / "bin").mkdir(parents=True)
    for name in ("sbatch", "srun", "sacct", "squeue", "scontrol"):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        command.chmod(0o755)
    number = str(10_000 + os.getpid() % 9_000)  # Lightning derives a port from it
    return {"FAKE_JOB": number, "FAKE_SLURM": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def flag(script: str, name: str) -> str | None:
    found = re.search(rf"^#SBATCH --{name}=(.*)$", script, re.MULTILINE)
    return found[1].strip("'") if found else None


def state(job: str, now: str | None = None) -> str:
    file = HERE / f"{job}.state"
    if now is not None:
        file.write_text(now)
    return file.read_text() if file.exists() else ""


def sbatch(path: str) -> None:
    script = Path(path).read_text()
    (HERE / "script.sh").write_text(script)
    number, array = os.environ["FAKE_JOB"], flag(script, "array")
    jobs = [f"{number}_{n}" for n in range(int(array.split("%")[0].split("-")[1]) + 1)] if array else [number]
    for job in jobs:
        state(job, "PENDING")
    command = [sys.executable, __file__, "run", str(HERE / "script.sh"), *jobs]
    with (HERE / "log").open("w") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        subprocess.Popen(command, start_new_session=True, **streams)
    print(f"Submitted batch job {number}")


def run(path: str, *jobs: str) -> None:
    script = Path(path).read_text()
    nodes, tasks = int(flag(script, "nodes")), int(flag(script, "ntasks-per-node"))
    waiting = [(job, 0) for job in jobs]
    for job, restarts in waiting:
        array, _, index = job.partition("_")
        own = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index} if index else {}
        own |= {"SLURM_JOB_ID": str(int(array) + int(index or 0)), "SLURM_JOB_NAME": flag(script, "job-name")}
        own |= {"SLURM_JOB_NUM_NODES": str(nodes), "SLURM_NNODES": str(nodes), "SLURM_NTASKS": str(nodes * tasks)}
        own |= {"SLURM_NTASKS_PER_NODE": str(tasks), "SLURM_NODELIST": "localhost", "FAKE_JOB": job}
        own |= {"SLURM_JOB_NODELIST": "localhost", "SLURM_RESTART_COUNT": str(restarts)}
        state(job, "RUNNING")
        done = subprocess.run(["bash", path], env=os.environ | own, check=False)
        if state(job) == "REQUEUED":
            waiting.append((job, restarts + 1))
        else:
            state(job, "COMPLETED" if done.returncode == 0 else "FAILED")


def srun(*arguments: str) -> None:
    command = list(arguments)
    streams = {}
    while command[0].startswith("--"):
        option = command.pop(0)
        if option in ("--output", "--error"):
            streams[option] = command.pop(0)
    job, count = os.environ["FAKE_JOB"], int(os.environ["SLURM_NTASKS"])
    tasks = []
    for rank in range(count):
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        own |= {"SLURM_STEP_NUM_TASKS": str(count)}
        with ExitStack() as stack:
            paths = [streams[name].replace("%A_%a", job).replace("%j", job) for name in ("--output", "--error")]
            out, err = (stack.enter_context(open(path.replace("%t", str(rank)), "a")) for path in paths)
            tasks.append(subprocess.Popen(command, env=os.environ | own, stdout=out, stderr=err))
    (HERE / f"{job}.tasks").write_text(" ".join(str(task.pid) for task in tasks))
    sys.exit(max(abs(task.wait()) for task in tasks))


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for file in HERE.glob("*.state"):
        print(f"{file.stem}|{file.read_text()}|localhost")


def squeue(*arguments: str) -> None:
    (job,) = (text.partition("=")[2] for text in arguments if text.startswith("--jobs="))
    if state(job) in ("PENDING", "RUNNING", "REQUEUED"):
        print(state(job))


def scontrol(action: str, job: str) -> None:
    state(job, "REQUEUED")


if __name__ == "__main__":
    with (HERE / "calls").open("a") as calls:
        print(*sys.argv[1:], file=calls)
    globals()[sys.argv[1]](*sys.argv[2:])
