"""All ranks must read the same data: where they do not, they would wait for each other for ever."""

from typing import Any

from lightning import Trainer
from torch import distributed

from app.errors import UserError


def refuse_other_data(trainer: Trainer) -> None:
    """Raises UserError, on all ranks, where the batches of one are not those that another shares; to be called on all
    of them, once there are loaders."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    everyones: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyones, trainer.datamodule.share_of_rank())
    others = [rank for rank, one in enumerate(everyones) if one != everyones[0]]
    if others:
        listed = ", ".join(map(str, others[:8])) + ", ..." * (len(others) > 8)
        own, theirs = everyones[0], everyones[others[0]]
        raise UserError(
            f"data: rank 0 has {own['examples']} examples in {own['batches']} batches an epoch, rank {others[0]} has"
            f" {theirs['examples']} in {theirs['batches']}, and they are not the same (ranks that differ: {listed}):"
            " give every machine the same files, or one folder that all of them see"
        )
