"""`python train.py --multirun ...`: check every job, run what is not done yet, tell how all of them ended."""

import os
import signal
from collections.abc import Mapping, Sequence

from app.errors import UserError
from app.files.lock import Lock
from app.sweep import report
from app.sweep.check import check, refuse_running
from app.sweep.jobs import Job, Sweep, read_sweep
from app.sweep.local import Local
from app.sweep.report import Standing
from app.training.console import console, say
from app.training.recipe import TrainerSettings

FLAGS = ("--multirun", "-m")

LAUNCHER = "hydra/launcher="
HERE, SLURM = "basic", "submitit_slurm"
"""Hydra's names of launchers."""


def sweep(arguments: Sequence[str]) -> int:
    """Train every combination of the values given; the exit status: 0 if all are done, 1 if a job is not, 128 and the
    number of the signal that ended the sweep.

    Raises UserError, before anything begins, for what the user can mend in any of the jobs.
    """
    asked = read_sweep([text for text in arguments if text not in FLAGS])
    on_slurm = _is_for_slurm(asked.launcher)
    _refuse_ranks()
    checked = check(asked.jobs)
    if on_slurm:
        try:
            from app.sweep import slurm
        except ModuleNotFoundError as error:
            raise UserError(f"{LAUNCHER}{SLURM}: {error.name} is not installed: pip install -e '.[slurm]'") from None
        trainers = [trainer for trainer, _ in checked.values()]
        settings = slurm.settings_of(asked.launcher, asked.folder, trainers)
    with Lock(asked.folder, doing="running a sweep").held():
        standings = _begin(asked, checked, on_slurm)
        if on_slurm:
            waiting = slurm.submit(asked, standings, settings)
        else:
            received = _run_here(asked, standings)
    if on_slurm:  # others may wait as well, and submit more
        received = slurm.wait(asked, standings, waiting)
    if received == signal.SIGHUP:  # nobody is there to be told
        return 128 + received
    console.print(report.table(asked, standings), soft_wrap=False)
    if received:
        say("the same command goes on with the sweep")
        return 128 + received
    return int(any(standing.status != 0 for standing in standings.values()))


def _begin(sweep: Sweep, checked: Mapping[Job, tuple[TrainerSettings, bool]], on_slurm: bool) -> dict[Job, Standing]:
    """How the jobs stand, also written down. Raises UserError where one is being trained."""
    before = report.slurm_jobs(sweep)
    refuse_running([job for job in sweep.jobs if not (on_slurm and job.name in before)])  # the queue tells of those
    standings = {
        job: Standing.ended(0) if done else Standing(slurm_job=before.get(job.name))
        for job, (_, done) in checked.items()
    }
    done = sum(done for _, done in checked.values())
    say(f"sweep of {len(sweep.jobs)} jobs into {sweep.folder}" + (f", {done} done before" if done else ""))
    report.write(sweep, standings)
    return standings


def _run_here(sweep: Sweep, standings: dict[Job, Standing]) -> int | None:
    """Run what is left; the signal that ended the sweep."""
    local = Local()
    with local.passing_signals_on():
        for number, job in enumerate(sweep.jobs, start=1):
            if standings[job].status is None and local.received is None:
                say(f"job {number} of {len(sweep.jobs)}: {' '.join(job.swept)}, into {job.folder}")
                standings[job] = Standing.ended(local.run(job))
                report.write(sweep, standings)
    return local.received


def _is_for_slurm(launcher: Sequence[str]) -> bool:
    chosen = [text.removeprefix(LAUNCHER) for text in launcher if text.startswith(LAUNCHER)] or [HERE]
    if len(chosen) > 1 or chosen[0] not in (HERE, SLURM):
        raise UserError(f"{LAUNCHER}{' '.join(chosen)}: give {HERE} (this machine, the default) or {SLURM}")
    for text in launcher:
        key = text.partition("=")[0]
        if not text.startswith(LAUNCHER) and not key.startswith("hydra.launcher."):
            raise UserError(f"{key}: of Hydra's own settings only hydra/launcher and hydra.launcher.* are read")
        if key.startswith("hydra.launcher.") and chosen[0] == HERE:
            raise UserError(f"{key} has no effect without {LAUNCHER}{SLURM}")
    return chosen[0] == SLURM


def _refuse_ranks() -> None:
    several = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    if several or "LOCAL_RANK" in os.environ:
        raise UserError(
            "--multirun: start it once, not by torchrun or as several tasks: each job starts its own processes, as"
            " many as trainer.devices says"
        )
