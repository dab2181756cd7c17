"""Random arguments at Multiflow's widths: edges of 128, nodes narrowed to 128.

No hidden unit comes near the kink of its ReLU, where rounding alone would decide whether it has a gradient: the sign of
a number of node i drives each unit of the first layer, and a large bias each of the second.
"""

from typing import Any

import torch

_AWAY = 4.0
"""From the kink; what else enters a unit has a standard deviation of about a half."""


def example(
    length: int,
    batch: int = 1,
    seed: int = 0,
    c_z: int = 128,
    hidden: int | None = None,
    inner: int | None = None,
    out: int | None = None,
    width: int = 128,
) -> dict[str, Any]:
    """Float64 on the CPU; from three residues on some are absent, whose rows have no edge.

    hidden: that of the first layer, by default as the second's, `inner`, which is c_z and both nodes' widths together.
    out: by default c_z.
    """
    source = torch.Generator().manual_seed(seed)
    inner = inner or hidden or c_z + 2 * width
    hidden, out, width = hidden or inner, out or c_z, (inner - c_z) // 2

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(shape, generator=source, dtype=torch.float64)

    units = torch.arange(hidden)
    first = normal(hidden, inner, scale=0.5 * inner**-0.5)
    first[units, c_z + units % width] = _AWAY
    second = normal(inner, hidden, scale=0.2 * hidden**-0.5)
    present = torch.ones(batch, length, dtype=torch.float64)
    if length >= 3:
        present[:, 1] = 0
        present[-1:, -(length // 4) :] = 0
    return {
        "edge": normal(batch, length, length, c_z), "node": normal(batch, length, width).sign(),
        "first": (first, normal(hidden, scale=0.1)), "second": (second, _AWAY * normal(inner).sign()),
        "last": (normal(out, inner, scale=inner**-0.5), normal(out, scale=0.1)),
        "norm": (1 + normal(out, scale=0.1), normal(out, scale=0.1)),
        "mask": present[:, :, None] * present[:, None],
    }  # fmt: skip
