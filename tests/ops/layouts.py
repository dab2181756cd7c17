"""The same numbers, laid out in memory in other ways."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

Layout = Callable[[torch.Tensor], torch.Tensor]


def every_other(x: torch.Tensor) -> torch.Tensor:
    """Every other one, between what must not be read."""
    if not x.is_floating_point():
        return x
    return torch.stack([x, torch.full_like(x, torch.nan)], dim=-1)[..., 0]


def turned(x: torch.Tensor) -> torch.Tensor:
    """The first dimension innermost."""
    dims = list(reversed(range(x.dim())))
    return x.permute(dims).contiguous().permute(dims)


def heads_outside(x: torch.Tensor) -> torch.Tensor:
    """The last dimension innermost and the one before it outermost, as after a product by heads."""
    return x.movedim(-2, 0).contiguous().movedim(0, -2) if x.dim() > 2 else x


def cut_out(x: torch.Tensor) -> torch.Tensor:
    """Out of longer rows, from their second number on: no row begins where a kernel may load many numbers at once."""
    return F.pad(x, (1, 2), value=torch.nan)[..., 1:-2] if x.is_floating_point() else x


LAYOUTS = every_other, turned, heads_outside
EVERY_LAYOUT = *LAYOUTS, cut_out
"""For kernels of our own; those of torch on a GPU want rows that are aligned."""
