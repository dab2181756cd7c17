"""Random numbers of a batch of designs, each design with a stream of its own."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from app.devices import send

AHEAD = 2**22
"""Numbers drawn at a time at most, where several draws are made ahead: 16 MB on the CPU and on the device."""


class Draws:
    """Random numbers that depend on a design's seed and length and on nothing else: not on what shares its batch.

    Streams live on the CPU, so a seed means the same design on every device.
    """

    def __init__(self, seeds: list[int], res_mask: Tensor):
        """seeds: one a design; res_mask: [B, N], whose last present residue ends a design's stream of a draw."""
        self.device = res_mask.device
        self.length = res_mask.shape[1]
        present = res_mask.cpu() > 0
        position = torch.arange(1, self.length + 1)
        self.lengths = (present * position).amax(-1).tolist()
        self.generators = [torch.Generator().manual_seed(int(seed) % 2**63) for seed in seeds]

    def normal(self, *width: int) -> Tensor:
        """Standard normal numbers [B, N, *width], 0 beyond a design's end."""
        return self._stack(torch.randn, width)

    def uniform(self, *width: int) -> Tensor:
        """Uniform numbers in [0, 1), [B, N, *width], 0 beyond a design's end."""
        return self._stack(torch.rand, width)

    def uniform_ahead(self, times: int, *width: int, ahead: int | None = None) -> Iterator[Tensor]:
        """`uniform(*width)` that many times, drawn on before it is asked for: the device never waits for a draw.

        ahead: draws at a time, None for as many as `AHEAD` allows; 1 where something else draws in between.
        """
        size = len(self.generators) * self.length * math.prod(width)
        ahead = max(1, AHEAD // size) if ahead is None else ahead
        for first in range(0, times, ahead):
            block = torch.zeros(min(ahead, times - first), len(self.generators), self.length, *width)
            for row, (length, generator) in enumerate(zip(self.lengths, self.generators, strict=True)):
                # A stream of uniform numbers is the same in one piece as in many; one of normal numbers is not.
                block[:, row, :length] = torch.rand(len(block), length, *width, generator=generator)
            yield from send(block, self.device)

    def seed(self) -> int:
        """A seed for numbers that a model draws by itself; with several designs in the batch it depends on them all."""
        return sum(int(torch.randint(2**62, (), generator=generator)) for generator in self.generators) % 2**63

    def _stack(self, draw, width: tuple[int, ...]) -> Tensor:
        out = torch.zeros(len(self.generators), self.length, *width)
        for row, length, generator in zip(out, self.lengths, self.generators, strict=True):
            row[:length] = draw(length, *width, generator=generator)
        return out.to(self.device)
