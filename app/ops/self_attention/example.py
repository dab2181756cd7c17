"""Random arguments of the sizes that Multiflow's transformers have: 4 heads of 64."""

from typing import Any

import torch


def example(length: int, batch: int = 1, seed: int = 0, width: int = 64, num_heads: int = 4) -> dict[str, Any]:
    """Float64 on the CPU, without dropout; some keys are absent, and of two examples or more the last has none."""
    source = torch.Generator().manual_seed(seed)
    mask = (torch.rand(batch, length, generator=source) > 0.1).double()
    mask[:, :1] = 1
    mask[1:][-1:] = 0
    nodes = (batch, num_heads, length, width)
    q, k, v = (torch.randn(nodes, generator=source, dtype=torch.float64) for _ in range(3))
    return {"q": q, "k": k, "v": v, "key_mask": mask}
