"""Random arguments at Multiflow's widths: features of 64, 22 bins, edges of 128; positions at protein scale."""

from typing import Any

import torch

_AWAY = 4.0
"""Of hidden units from the kink of their ReLU, near which rounding alone would decide whether they have a gradient."""


def example(
    length: int, batch: int = 1, seed: int = 0, width: int = 64, num_bins: int = 22, c_z: int = 128
) -> dict[str, Any]:
    """Float64 on the CPU; from three residues on some are absent, whose rows have no edge."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(shape, generator=source, dtype=torch.float64)

    def layer(inputs: int, scale: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
        return normal(c_z, inputs, scale=scale * inputs**-0.5), _AWAY * normal(c_z).sign()

    total = 3 * width + 2 * num_bins + 1 + 2
    steps = torch.nn.functional.normalize(normal(batch, length, 3), dim=-1)
    trans = (3.8 * steps).cumsum(1) + 300 * normal(batch, 1, 3)
    present = torch.ones(batch, length, dtype=torch.float64)
    if length >= 3:
        present[:, 1] = 0
        present[-1:, -(length // 4) :] = 0
    return {
        "node": normal(batch, length, width), "relative": normal(max(0, 2 * length - 1), width),
        "trans": (trans, trans + normal(batch, length, 3)), "num_bins": num_bins,
        "chain_idx": 1 + (torch.arange(length) >= length // 2).long().expand(batch, length),
        "diffuse_mask": (torch.rand(batch, length, generator=source) > 0.3).double(),
        "first": layer(total, scale=0.5), "second": layer(c_z), "last": layer(c_z, scale=1.0),
        "norm": (1 + normal(c_z, scale=0.1), normal(c_z, scale=0.1)),
        "mask": present[:, :, None] * present[:, None],
    }  # fmt: skip
