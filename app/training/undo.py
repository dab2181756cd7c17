"""An optimizer's step that can be taken back."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class Before:
    """A copy of an optimizer's parameters and of its state, as they were when it was made.

    It takes their memory once more, at a time when there are no activations. AdamW changes its moments before it takes
    the last memory that it needs, so that a step which fails could not be computed back.
    """

    @torch.no_grad()
    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self._stateful = set(optimizer.state)
        self._now = [_mine(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        self._now += [_mine(value) for state in optimizer.state.values() for value in _tensors(state)]
        self._then = [torch.empty_like(tensor) for tensor in self._now]
        _copy(self._then, self._now)

    @torch.no_grad()
    def put_back(self) -> None:
        _copy(self._now, self._then)
        for parameter in set(self.optimizer.state) - self._stateful:
            del self.optimizer.state[parameter]


def _tensors(state: dict[str, Any]) -> Iterable[Tensor]:
    return [value for value in state.values() if isinstance(value, Tensor)]


def _mine(tensor: Tensor) -> Tensor:
    """The part of it that is on this device, as it lies there."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """All of a device in few launches; steps are counted on the CPU."""
    of_device = defaultdict(list)
    for target, source in zip(targets, sources, strict=True):
        of_device[target.device].append((target, source))
    for pairs in of_device.values():
        torch._foreach_copy_(*map(list, zip(*pairs, strict=True)))
