"""Jobs of SLURM that end before their run does: requeued, and continued when SLURM starts them again."""

import os
import signal
import subprocess
import threading
from typing import NoReturn

from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

from app.training.console import say


def was_requeued() -> bool:
    """Whether SLURM has run this very job before, with the same command."""
    return SLURMEnvironment.job_id() is not None and os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def requeue_if_told_to_end() -> None:
    """Before training waits for SIGUSR1 itself (`interrupt.py`), it would kill this job, and nobody would queue it."""
    if SLURMEnvironment.job_id() is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, _requeue_and_end)


def _requeue_and_end(number: int, *_) -> NoReturn:
    if rank_zero_only.rank == 0:
        requeue()
    raise SystemExit(128 + number)


def requeue() -> None:
    """Have SLURM run this job again. Outside of one, nothing happens."""
    if SLURMEnvironment.job_id() is None:
        return
    job = os.environ["SLURM_JOB_ID"]
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = "" if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"
    except OSError as error:
        reason = error.strerror
    say(f"{' '.join(command)}: {f'failed, {reason}; submit the job again' if reason else 'the job is queued again'}")
