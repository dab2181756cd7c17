"""The counters of Lightning's loops, for a run that goes on from a checkpoint which has none."""

from typing import Any

from lightning import Trainer


def at_start_of_epoch(trainer: Trainer, epoch: int, step: int) -> dict[str, Any]:
    """What the loops of `trainer` store when `epoch` epochs and `step` optimizer steps are done and no batch is begun.

    Raises KeyError where a version of Lightning stores other things.
    """
    fit = trainer.fit_loop.state_dict()
    for counts in (fit["epoch_progress"]["total"], fit["epoch_progress"]["current"]):
        for name in ("ready", "started", "processed", "completed"):
            counts[name] = epoch
    steps = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    for name in ("ready", "completed"):
        steps[name] = step
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = step
    return {"fit_loop": fit}
