"""What training on several devices changes of the memory of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from app.model.stack import single_layers

GATHERED = 4
"""Times that a layer is there whole while `fully_shard` works on it: its parameters and what they were gathered into,
its gradients and what they are scattered from."""


@dataclass(frozen=True)
class Spread:
    """devices: that train together. shards: each has a part of the parameters (`fully_shard`), not a copy (DDP)."""

    devices: int = 1
    shards: bool = False

    def own(self, weight: Tensor) -> int:
        """Numbers of a weight, and so of its gradient and its moments, that one device keeps: shards are cut along the
        first dimension, the last may be smaller."""
        if not self.shards or not weight.dim():
            return weight.numel()
        return math.ceil(len(weight) / self.devices) * math.prod(weight.shape[1:])

    def exchange(self, model: nn.Module) -> int:
        """Bytes that shards take beside a device's own during the passes: the largest layer, gathered, and what belongs
        to no layer, which stays so until the end of the backward pass."""
        if not self.shards or self.devices == 1:
            return 0
        layers = [bytes_of(list(layer.parameters())) for layer in single_layers(model)]
        return bytes_of(list(model.parameters())) - sum(layers) + GATHERED * max(layers, default=0)

    def averaging(self, weights: Sequence[Tensor]) -> int:
        """Bytes of the row of all gradients in which copies of a model average them, at the end of a step."""
        return 0 if self.shards or self.devices == 1 else bytes_of(weights)


ALONE = Spread()


def bytes_of(weights: Sequence[Tensor]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)
