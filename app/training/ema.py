"""An exponential moving average of the weights (Polyak & Juditsky 1992), kept in float32 beside them.

Lightning's `WeightAveraging` would keep a copy of the whole module, a frozen language model included, and cannot hold
sharded parameters; this keeps a tensor a parameter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from app.training.shards import whole
from app.training.strategies import reshard

KEY = "ema_state_dict"
"""Where a checkpoint has the average, by the names of `state_dict`, which has the weights that are trained."""


class Ema(Callback):
    """The average is taken after every optimizer step, and stands in for the weights while the model is validated.

    Its decay rises to the one that is given, as min(decay, (1 + n) / (10 + n)) after n steps: early on, an average over
    all of a run would be one of weights that had learnt nothing.

    A checkpoint has it under `KEY`, float32, whole however the parameters are sharded. One without begins with the
    weights that it has. Checkpoint callbacks have their turn after all others, so that they see the trained weights.
    """

    state_key = "ema"

    def __init__(self, decay: float):
        self.decay, self.updates = decay, 0
        self._average: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}  # while the average is in their place
        self._step = 0

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._average = dict(checkpoint.get(KEY, {}))

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        with torch.no_grad():
            self._average = {
                name: _laid_out_like(parameter, self._average[name]) if self._average else parameter.float().clone()
                for name, parameter in module.named_parameters()
            }
        self._step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: dict, *_: Any) -> None:
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        if "skipped" in outputs:  # the weights are as they were
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = [parameter.float() for parameter in module.parameters()]
        get_ema_multi_avg_fn(decay)(list(self._average.values()), now, self.updates)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._put_in_place(module)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._put_back(module)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._put_back(module)

    @contextmanager
    def in_place(self, module: nn.Module) -> Iterator[None]:
        """The average in the weights' place, for whoever samples in the middle of a run."""
        mine = not self._trained
        self._put_in_place(module)
        try:
            yield
        finally:
            if mine:
                self._put_back(module)

    @torch.no_grad()
    def _put_in_place(self, module: nn.Module) -> None:
        reshard(module)
        if self._average and not self._trained:
            with torch.inference_mode(False):  # which Lightning validates in: what is kept is to be trained on again
                self._trained = {name: parameter.clone() for name, parameter in module.named_parameters()}
            for name, parameter in module.named_parameters():
                parameter.copy_(self._average[name])

    @torch.no_grad()
    def _put_back(self, module: nn.Module) -> None:
        reshard(module)
        parameters, trained, self._trained = dict(module.named_parameters()), self._trained, {}
        for name, value in trained.items():
            parameters[name].copy_(value)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = whole(self._average)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = int(state["updates"])


def _laid_out_like(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """A copy in float32 where the parameter is, sharded as it is."""
    value = value.to(parameter.device, torch.float32, copy=True)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
