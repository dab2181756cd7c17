"""Every job of a sweep is checked before the first begins."""

import os
from collections.abc import Sequence

from app.devices import CPU
from app.errors import UserError
from app.files.lock import Lock
from app.model.codesign import CodesignModel
from app.sweep.jobs import Job
from app.training.checkpoint import Opened
from app.training.estimate import needs_of
from app.training.plan import plan_of
from app.training.recipe import OF_THE_MACHINE, Recipe, TrainerSettings
from app.training.resume import changes
from app.training.run import refuse_idle
from app.training.run_end import UNLIMITED, is_reached

MAY_CHANGE = (
    *OF_THE_MACHINE,
    "callbacks",
    "logger",
    "data.cache_dir",
    "data.workers",
    "data.loader.num_workers",
    "trainer.accelerator",
    "trainer.strategy",
    "trainer.max_steps",
    "trainer.max_epochs",
    "trainer.checkpoint_every",
    "trainer.keep_checkpoints",
    "trainer.log_every",
)
"""Sections and keys that say where a run is trained, for how long, and what is kept of it, but not what it learns."""


def check(jobs: Sequence[Job]) -> dict[Job, tuple[TrainerSettings, bool]]:
    """How each job is to be trained, and whether it has been.

    Raises UserError, which names the job, for whatever train.py would refuse before it looks at devices and data, for a
    run without end, for swept data that are not there, and for a run that lies there, trained by other settings: a
    sweep tells of results what was typed.
    """
    models: dict[str, CodesignModel] = {}
    found = {}
    for job in jobs:
        try:
            found[job] = _check(job, models)
        except UserError as error:
            raise UserError(f"job {job.name}: {error}") from None
    return found


def refuse_running(jobs: Sequence[Job]) -> None:
    """Raises UserError where a job is being trained already, as by a sweep that was killed and left it running."""
    for job in jobs:
        if (holder := Lock(job.folder).holder()) is not None:
            raise UserError(
                f"job {job.name}: {holder} is training into {job.folder}: wait for its end or stop it, then give the"
                " same command again"
            )


def _check(job: Job, models: dict[str, CodesignModel]) -> tuple[TrainerSettings, bool]:
    """models: without numbers, of jobs before this one, by their settings: jobs of a sweep often share one."""
    plan = plan_of(job.arguments)
    trainer, settings = plan.recipe.trainer, plan.recipe.model.model_dump_json()
    if trainer.max_steps == trainer.max_epochs == UNLIMITED:
        raise UserError("would never end: give trainer.max_steps or trainer.max_epochs")
    if any(text.startswith("data.path=") for text in job.swept) and not os.path.exists(str(plan.recipe.data["path"])):
        raise UserError(f"data.path={plan.recipe.data['path']}: no such file or folder; quote a path that has commas")
    if settings not in models:
        models[settings] = needs_of(plan.recipe, CPU).model
    refuse_idle(job.arguments, models[settings], plan.recipe)
    resumed = plan.resume
    if resumed is not None:
        _refuse_other_settings(resumed, plan.recipe)
    return trainer, resumed is not None and is_reached(trainer, resumed.step, resumed.epochs_done)


def _refuse_other_settings(resumed: Opened, recipe: Recipe) -> None:
    for key, old, new in changes(resumed.recipe, recipe):
        if not any(key == one or key.startswith(f"{one}.") for one in MAY_CHANGE):
            raise UserError(f"was trained with {key}={old}, not {new}: choose another out=, or type what it began with")
