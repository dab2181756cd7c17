"""Every job of a sweep is checked before the first begins."""

from app.devices import CPU
from app.errors import UserError
from app.sweep.jobs import Job
from app.training.estimate import needs_of
from app.training.recipe import TrainerSettings
from app.training.run import plan_of, refuse_idle
from app.training.run_end import UNLIMITED, is_reached


def check(job: Job) -> tuple[TrainerSettings, bool]:
    """How a job is to be trained, and whether it has been.

    Raises UserError, which names the job, for whatever train.py would refuse before it looks at devices and data, and
    for a run without end.
    """
    try:
        plan = plan_of(job.arguments)
        trainer = plan.recipe.trainer
        if trainer.max_steps == trainer.max_epochs == UNLIMITED:
            raise UserError("would never end: give trainer.max_steps or trainer.max_epochs")
        refuse_idle(job.arguments, needs_of(plan.recipe, CPU).model, plan.recipe)
    except UserError as error:
        raise UserError(f"job {job.name}: {error}") from None
    resumed = plan.resume
    return trainer, resumed is not None and is_reached(trainer, resumed.step, resumed.epochs_done)
