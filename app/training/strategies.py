"""How a run is spread over devices: none, copies of the model (DDP), or its parameters cut into shards (FSDP)."""

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, OptimStateKeyType, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from app.errors import UserError
from app.model.stack import single_layers
from app.training.recipe import TrainerSettings
from app.training.shards import whole
from app.types import Frames, NoisyBatch, Prediction, TrunkState

FSDP = "fsdp"


def strategy_of(settings: TrainerSettings, accelerator: str) -> str | Strategy:
    """What Lightning is to be given. Raises UserError where shards are asked for on a Mac's GPU."""
    if settings.strategy != FSDP:
        return settings.strategy
    if accelerator == "mps":
        raise UserError("trainer.strategy=fsdp: a Mac has one GPU: use trainer=mps")
    return FullyShard()


class FullyShard(ModelParallelStrategy):
    """PyTorch's `fully_shard` on all devices of all nodes; checkpoints are those of a run on one device.

    Saving gathers parameters and optimizer on the first rank, so that what one device or `infer.py` reads is one file;
    to resume every rank reads it, and keeps its shards.
    """

    def __init__(self):
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        state = self.checkpoint_io.load_checkpoint(checkpoint_path)
        set_model_state_dict(self.model, state["state_dict"], options=StateDictOptions(full_state_dict=True))
        return state

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True  # after the module had its say on a checkpoint, whose groups of parameters may be others

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return whole(get_model_state_dict(self.model))

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        optimizer = getattr(optimizer, "_optimizer", optimizer)  # Lightning wraps it
        state = whole(get_optimizer_state_dict(self.model, optimizer))
        return self._keyed(state, OptimStateKeyType.PARAM_ID, optimizer) if self.global_rank == 0 else state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, kept in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            named = self._keyed(kept, OptimStateKeyType.PARAM_NAME, optimizer)
            options = StateDictOptions(full_state_dict=True)
            set_optimizer_state_dict(self.model, optimizer, named, options=options)

    def _keyed(self, state: dict[str, Any], key: OptimStateKeyType, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Parameters by number, as the optimizer counts them over its groups, or by name."""
        return FullyShardedDataParallel.rekey_optim_state_dict(state, key, self.model, optim=optimizer)


def unwrap(strategy: Strategy) -> None:
    """Take off DDP's wrapper, which has made the copies alike. `OptimizerStep` averages their gradients itself, once
    all ranks know that all have one: the wrapper would wait for those of a rank that ran out of memory."""
    if isinstance(strategy.model, DistributedDataParallel):
        strategy.model = strategy.lightning_module


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Cut the parameters of each layer of a stack, and what is left over, into a shard for each device of the mesh.

    A layer's parameters are gathered when it runs, forward and backward, and let go of afterwards.
    """
    _show_tensors()
    for layer in single_layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(module: nn.Module) -> bool:
    """Whether parameters are cut into shards, so that all ranks must call the model equally often."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def reshard(module: nn.Module) -> None:
    """`fully_shard` leaves the outermost parameters gathered after a forward pass without a backward one."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


@cache
def _show_tensors() -> None:
    """`fully_shard` hangs what it does in the backward pass on the tensors that go in and out, and looks for them in
    containers that torch knows."""
    # Nothing here changes an output in place.
    warnings.filterwarnings("ignore", ".*FSDP2-wrapped module .* returned a view tensor", UserWarning)
    for kind in (Frames, TrunkState, NoisyBatch, Prediction):
        torch.export.register_dataclass(kind)


def is_finite(parameter: torch.Tensor) -> bool:
    """Whether all of it that is on this device is finite."""
    mine = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return bool(mine.isfinite().all())
