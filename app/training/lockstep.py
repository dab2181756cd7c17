"""Passes of a model whose parameters are in shards, which break off on all ranks where one runs out of memory."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule

from app.devices import free_memory, is_out_of_memory
from app.errors import UserError
from app.training.memory import Alone

T = TypeVar("T")


class OutOfMemoryElsewhere(RuntimeError):
    """Told in words by which `app.devices.is_out_of_memory` knows it."""

    def __init__(self):
        super().__init__("out of memory on another rank")


class Lockstep(Alone):
    """Within the passes ranks gather parameters and sum up gradients together; one that has run out of memory would
    leave the others waiting. So before each of these, and after the last, all tell each other whether they go on: one
    that has failed says so in its place, and there the others break off as well.

    They tell by gloo, on the CPU: the devices need not be waited for. It is to be made on all ranks at once.
    """

    def __init__(self, model: nn.Module):
        self.model, self._group = model, distributed.new_group(backend="gloo")
        for part in model.modules():
            if isinstance(part, FSDPModule):
                part.set_custom_all_gather(_Gather(self.go_on))
                part.set_custom_reduce_scatter(_Scatter(self.go_on))

    def anyones(self, flag: bool) -> bool:
        number = torch.tensor(int(flag))
        distributed.all_reduce(number, distributed.ReduceOp.MAX, group=self._group)
        return bool(number)

    def go_on(self) -> None:
        """Raises OutOfMemoryElsewhere where another rank does not."""
        if self.anyones(False):
            raise OutOfMemoryElsewhere

    def attempt(self, work: Callable[[], T], device: torch.device, failed: Callable[[], None]) -> T | None:
        try:
            made = work()
            self.go_on()
            return made
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            elsewhere = isinstance(error, OutOfMemoryElsewhere)
        if not elsewhere:
            self.anyones(True)
            failed()
        self._recover()
        free_memory(device)
        return None

    def _recover(self) -> None:
        if not hasattr(self.model, "reset_iter_state"):
            raise UserError(
                "out of memory: with this version of torch a model in shards cannot try again: lower"
                " data.loader.max_residues_squared, or upgrade torch"
            )
        self.model.reset_iter_state()


class _Buffers:
    """What `fully_shard` communicates in; like torch's own but for the question before."""

    def __init__(self, go_on: Callable[[], None]):
        self.go_on = go_on

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _Gather(_Buffers):
    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> Any:
        self.go_on()
        gather = _one_of("all_gather_single", "all_gather_into_tensor")
        return gather(output_tensor, input_tensor, group=group, async_op=async_op)


class _Scatter(_Buffers):
    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False) -> Any:
        self.go_on()
        scatter = _one_of("reduce_scatter_single", "reduce_scatter_tensor")
        return scatter(output_tensor, input_tensor, op=op, group=group, async_op=async_op)


def _one_of(name: str, before: str) -> Callable:
    """A function of `torch.distributed` by its name, or by what it was called before torch 2.13."""
    return getattr(distributed, name, None) or getattr(distributed, before)
