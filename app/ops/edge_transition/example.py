"""Random arguments at Multiflow's widths: edges of 128, nodes narrowed to 128."""

from typing import Any

import torch


def example(length: int, batch: int = 1, seed: int = 0, c_z: int = 128, width: int = 128) -> dict[str, Any]:
    """Float64 on the CPU; some residues are absent, and with three residues or more one row has no edge."""
    source = torch.Generator().manual_seed(seed)
    hidden = c_z + 2 * width

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(shape, generator=source, dtype=torch.float64)

    def layer(out: int) -> tuple[torch.Tensor, torch.Tensor]:
        return normal(out, hidden, scale=hidden**-0.5), normal(out, scale=0.1)

    present = (torch.rand(batch, length, generator=source) > 0.1).double()
    if length >= 3:
        present[:, 1] = 0
    return {
        "edge": normal(batch, length, length, c_z), "node": normal(batch, length, width),
        "first": layer(hidden), "second": layer(hidden), "last": layer(c_z),
        "norm": (1 + normal(c_z, scale=0.1), normal(c_z, scale=0.1)),
        "mask": present[:, :, None] * present[:, None],
    }  # fmt: skip
