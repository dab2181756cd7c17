"""Processes that a launcher started: as many as the run is made of, or they would all do the whole of it; and how those
end that Lightning started."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lightning import Trainer
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

from app.errors import OfOneProcess, UserError

_LAUNCHERS: dict[str, type[ClusterEnvironment]] = {"torchrun": TorchElasticEnvironment, "SLURM": SLURMEnvironment}


def by_launcher() -> bool:
    """Whether torchrun or SLURM started this process, and the others of its run."""
    return any(environment.detect() for environment in _LAUNCHERS.values())


def refuse_other_number(trainer: Trainer, keys: str, cure: str) -> None:
    """Raises UserError where torchrun or SLURM started another number of processes than `trainer` takes part with, and
    where neither started those of other nodes: Lightning would wait for them.

    keys: the settings that say how many those are. cure: what to choose instead.
    """
    taken = trainer.num_devices * trainer.num_nodes
    for name, environment in _LAUNCHERS.items():
        if environment.detect():
            if (started := environment().world_size()) != taken:
                raise UserError(
                    f"{name} starts {started} processes, and this run has {taken}, {keys}: {cure}, or start as many as"
                    " it has"
                )
            return
    if trainer.num_nodes > 1:
        raise UserError(f"num_nodes={trainer.num_nodes}: start it by torchrun or SLURM on each of them: {cure}")


@contextmanager
def after_the_first(seconds: float = 30) -> Iterator[None]:
    """A context that the first process of a run leaves at once, and those that it started through Lightning when it has
    ended; after so many seconds in any case.

    They all end for the same reason, with an error or by a signal, and the first has more to write. Lightning kills it
    when it finds that another ended with another status than 0. What only one process met is not held up, nor are
    errors that are none of the user's: of those the others know nothing, and wait for it.
    """
    first = None if rank_zero_only.rank == 0 or by_launcher() else os.getppid()
    try:
        yield
    except OfOneProcess:
        raise
    except UserError:
        _wait_for(first, seconds)
        raise
    _wait_for(first, seconds)


def _wait_for(parent: int | None, seconds: float) -> None:
    until = time.monotonic() + seconds
    while parent is not None and os.getppid() == parent and time.monotonic() < until:
        time.sleep(0.05)
