"""Processes that a launcher started: as many as the run is made of, or they would all do the whole of it."""

from lightning import Trainer
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment

from app.errors import UserError

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
