"""Processes that a launcher started: as many as the run is made of, or they would all do the whole of it."""

from lightning import Trainer
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment

from app.errors import UserError

_LAUNCHERS: dict[str, type[ClusterEnvironment]] = {"torchrun": TorchElasticEnvironment, "SLURM": SLURMEnvironment}


def refuse_other_number(trainer: Trainer) -> None:
    """Raises UserError where torchrun or SLURM started another number of processes than `trainer` takes part with."""
    taken = trainer.num_devices * trainer.num_nodes
    for name, environment in _LAUNCHERS.items():
        if environment.detect():
            if (started := environment().world_size()) != taken:
                raise UserError(
                    f"trainer: {name} starts {started} processes, and this run has {taken}, trainer.devices x"
                    " trainer.num_nodes: choose trainer=ddp or trainer=fsdp with trainer.devices=PROCESSES on each of"
                    " trainer.num_nodes=NODES, or start as many as it has"
                )
            return
