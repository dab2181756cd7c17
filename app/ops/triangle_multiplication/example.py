"""Random arguments of the pairformer's published widths: edges of 128, as wide inside."""

from typing import Any

import torch

from app.ops.triangle_multiplication.reference import Direction


def example(
    length: int, batch: int = 1, seed: int = 0, c_z: int = 128, inner: int = 128, direction: Direction = "outgoing"
) -> dict[str, Any]:
    """Float64 on the CPU; weights as large as after training, some edges absent, and of two examples or more all of the
    last one's."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(shape, generator=source, dtype=torch.float64)

    def norm(width: int) -> tuple[torch.Tensor, torch.Tensor]:
        return 1 + normal(width, scale=0.2), normal(width, scale=0.2)

    def weight(rows: int, columns: int) -> torch.Tensor:
        return normal(rows, columns, scale=columns**-0.5)

    mask = (torch.rand(batch, length, length, generator=source) > 0.1).double()
    mask[1:][-1:] = 0
    return {
        "edge": normal(batch, length, length, c_z), "mask": mask, "direction": direction,
        "norm_in": norm(c_z), "p_in": weight(2 * inner, c_z), "g_in": weight(2 * inner, c_z),
        "norm_out": norm(inner), "p_out": weight(c_z, inner), "g_out": weight(c_z, c_z),
    }  # fmt: skip
