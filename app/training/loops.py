"""The counters of Lightning's loops, for a run that goes on from a checkpoint which has none, or others."""

from typing import Any

from lightning import Trainer


def at_start_of_epoch(trainer: Trainer, epoch: int) -> dict[str, Any]:
    """What the loops of `trainer` store when `epoch` epochs are done and no batch is begun, `count_steps` aside.

    Raises KeyError where a version of Lightning stores other things.
    """
    fit = trainer.fit_loop.state_dict()
    for counts in (fit["epoch_progress"]["total"], fit["epoch_progress"]["current"]):
        for name in ("ready", "started", "processed", "completed"):
            counts[name] = epoch
    return {"fit_loop": fit}


def count_steps(fit: dict[str, Any], step: int) -> None:
    """Write into the stored counters that `step` optimizer steps are done, where Lightning looks for a module that
    makes its steps itself. Before ours did, it counted those that it made."""
    steps = fit["epoch_loop.manual_optimization.optim_step_progress"]["total"]
    for name in ("ready", "completed"):
        steps[name] = step
