"""Random arguments of the pairformer's published widths: 4 heads of 32."""

from typing import Any

import torch


def example(length: int, batch: int = 1, seed: int = 0, width: int = 32, num_heads: int = 4) -> dict[str, Any]:
    """Float64 on the CPU; some edges are absent, and with three residues or more one row has none."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64)

    mask = (torch.rand(batch, length, length, generator=source) > 0.1).double()
    if length >= 3:
        mask[:, 1] = 0
    rows = (batch, length, num_heads, length, width)
    return {
        "q": normal(*rows), "k": normal(*rows), "v": normal(*rows),
        "bias": normal(batch, num_heads, length, length), "mask": mask,
    }  # fmt: skip
