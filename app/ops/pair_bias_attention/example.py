"""Random arguments of the pairformer's sizes: 8 heads of 32."""

from typing import Any

import torch


def example(length: int, batch: int = 1, seed: int = 0, width: int = 32, num_heads: int = 8) -> dict[str, Any]:
    """Float64 on the CPU; some keys are absent, and of two examples or more the last has none."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64)

    nodes = (batch, num_heads, length, width)
    mask = (torch.rand(batch, length, generator=source) > 0.1).double()
    mask[:, :1] = 1
    mask[1:][-1:] = 0
    return {
        "q": normal(*nodes), "k": normal(*nodes), "v": normal(*nodes),
        "bias": normal(batch, num_heads, length, length), "key_mask": mask,
    }  # fmt: skip
