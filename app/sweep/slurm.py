"""Jobs on SLURM, as Hydra's submitit launcher describes them: `hydra/launcher=submitit_slurm hydra.launcher.KEY=...`.

The launcher's own way to run a job composes its config once more by Hydra's rules, and gives up waiting at the first
job that fails. What is taken from it is what users know: its settings and their defaults, and submitit, by which they
become a submission script, an array of jobs, and what there is to know of them. In a job every task starts `train.py`
(`task.py`), so that Lightning finds what SLURM says of nodes, tasks and ranks.
"""

import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
from hydra import compose, initialize
from hydra.errors import HydraException
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from submitit.core.utils import FailedJobError, UncompletedJobError

from app.config.keys import did_you_mean, one_line
from app.devices import DEVICE_TYPES, NVIDIA
from app.errors import UserError
from app.sweep import report
from app.sweep.jobs import Job, Sweep
from app.sweep.report import Standing
from app.sweep.task import TRAIN, task
from app.training.console import say
from app.training.recipe import TrainerSettings

PREFIX = "hydra.launcher."
IDLE = ("max_num_timeout", "submitit_folder")
"""Settings of the launcher's that are settled here: runs are queued again until they are done; logs go into `out`."""


def settings_of(typed: Sequence[str], folder: Path, trainers: Sequence[TrainerSettings]) -> dict[str, Any]:
    """The launcher's settings: those typed, tasks and nodes as the jobs need them, and else its own defaults.

    Raises UserError for keys and values that it does not have, and where jobs need different numbers of devices.
    """
    given = {text.partition("=")[0].removeprefix(PREFIX) for text in typed if text.startswith(PREFIX)}
    known = [name for name in _composed([])["launcher"] if name not in ("_target_", *IDLE)]
    for name in given - set(known):
        if name in IDLE:
            raise UserError(f"{PREFIX}{name} has no effect: jobs are queued again until done; logs go into out")
        raise UserError(f"{PREFIX}{name} is unknown: {did_you_mean(name, known)}it has {', '.join(known)}")
    composed = _composed([text for text in typed if text.startswith(PREFIX)], folder)["launcher"]
    settings = OmegaConf.to_container(composed, resolve=True)
    del settings["_target_"], settings["max_num_timeout"]
    return settings | _resources(settings, given, trainers)


def _composed(typed: Sequence[str], folder: Path = Path()) -> Any:
    try:
        with initialize(config_path=None, version_base="1.3"):
            config = compose(None, ["hydra/launcher=submitit_slurm", *typed], return_hydra_config=True)
        OmegaConf.update(config, "hydra.sweep.dir", str(folder.absolute()))
        OmegaConf.update(config, "hydra.job.name", folder.name)
        return config.hydra
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"hydra.launcher: {one_line(error)}") from None


def _resources(settings: dict[str, Any], given: set[str], trainers: Sequence[TrainerSettings]) -> dict[str, Any]:
    """Nodes and a task for each device, which is how Lightning knows a job of SLURM's; a GPU for each where it is to be
    one and nothing else is said of GPUs."""
    shapes = {(one.num_nodes, one.devices) for one in trainers}
    if len(shapes) > 1:
        raise UserError("trainer.devices, trainer.num_nodes: jobs of a sweep on SLURM take equally many")
    ((nodes, devices),) = shapes
    if not isinstance(devices, int) or devices < 1:
        raise UserError(f"trainer.devices={devices}: say how many, which SLURM is asked for on each node")
    for name, wanted, key in (("nodes", nodes, "num_nodes"), ("tasks_per_node", devices, "devices")):
        if name in given and settings[name] != wanted:
            raise UserError(
                f"{PREFIX}{name}={settings[name]}, but trainer.{key}={wanted}: leave it out, SLURM starts a task for"
                " each device"
            )
    wanted = {"nodes": nodes, "tasks_per_node": devices}
    on_gpus = any(DEVICE_TYPES.get(one.accelerator) == NVIDIA for one in trainers)
    if on_gpus and not given & {"gpus_per_node", "gpus_per_task", "gres", "additional_parameters"}:
        wanted["gpus_per_node"] = devices
    return wanted


def submit(sweep: Sweep, standings: dict[Job, Standing], settings: dict[str, Any]) -> dict[Job, submitit.Job]:
    """Submit what is left and is not in the queue already; what there is to wait for.

    settings: see `settings_of`. Raises UserError where there is no SLURM, or where it refuses the jobs.
    """
    tasks = range(settings["nodes"] * settings["tasks_per_node"])
    folder, waiting, new = settings["submitit_folder"], {}, []
    for job, standing in standings.items():
        if standing.status is None and standing.slurm_job and _is_queued(standing.slurm_job):
            waiting[job] = submitit.SlurmJob(folder, standing.slurm_job, tasks)
            say(f"{job.name}: in the queue already, as {standing.slurm_job}")
        elif standing.status is None:
            new.append(job)
    if new:
        waiting |= zip(new, _submitted(new, settings), strict=True)
        say(f"submitted {len(new)} jobs as {waiting[new[0]].job_id.partition('_')[0]}; logs in {folder}")
    for job, queued in waiting.items():
        standings[job] = Standing(told=f"in the queue as {queued.job_id}", slurm_job=queued.job_id)
    report.write(sweep, standings)
    return waiting


def wait(sweep: Sweep, standings: dict[Job, Standing], waiting: dict[Job, submitit.Job]) -> int | None:
    """Until all are done; the signal that ended the waiting, which leaves jobs where they are."""
    jobs = {queued.job_id: job for job, queued in waiting.items()}
    try:
        for queued in submitit.helpers.as_completed(list(waiting.values()), poll_frequency=5):
            standings[jobs[queued.job_id]] = standing = _outcome(queued)
            report.write(sweep, standings)
            say(f"{jobs[queued.job_id].name}: {standing.told}")
    except KeyboardInterrupt:
        say("no longer waiting: the jobs stay in the queue (scancel ends them)")
        return signal.SIGINT
    return None


def _submitted(jobs: Sequence[Job], settings: dict[str, Any]) -> list[submitit.Job]:
    settings = dict(settings)
    of_every_cluster = set(OmegaConf.structured(BaseQueueConf).keys())
    path = f"export PYTHONPATH={shlex.quote(str(TRAIN.parent))}${{PYTHONPATH:+:$PYTHONPATH}}"
    setup = [path, *(settings.pop("setup") or [])]
    settings["additional_parameters"] = {"requeue": True} | settings["additional_parameters"]
    try:
        executor = submitit.AutoExecutor(settings.pop("submitit_folder"), cluster="slurm")
        named = {name if name in of_every_cluster else f"slurm_{name}": value for name, value in settings.items()}
        executor.update_parameters(**named, slurm_setup=setup)
        return executor.map_array(task, [job.arguments for job in jobs])
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"hydra/launcher=submitit_slurm: SLURM does not take the jobs: {one_line(error)}") from None


def _is_queued(number: str) -> bool:
    """Whether SLURM still has a job to run, or runs it."""
    command = ["squeue", "--noheader", f"--jobs={number}", "--format=%T"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return asked.returncode == 0 and bool(asked.stdout.strip())


def _outcome(queued: submitit.Job) -> Standing:
    """The exit status of the first rank, or what SLURM says of a job that did not come to one."""
    try:
        return Standing.ended(queued.results()[0], queued.job_id)
    except (UncompletedJobError, FailedJobError):
        return Standing(told=f"SLURM: {queued.state.lower()}", slurm_job=queued.job_id)
