"""Dropout whose rate follows the run's phase, and whose mask may be shared along rows or columns of a pair tensor."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.phase import ByPhase, Phased, Rate


class Dropout(nn.Dropout, Phased):
    """Zeroes entries at a rate and scales the rest by 1 / (1 - rate); `p` is the rate in training.

    shared: None, every entry is drawn on its own; "row" or "column", one draw for a whole row i or column j of a pair
    tensor [B, N, N, C], channels included (as Boltz-2 does it; AlphaFold 3, algorithm 17).
    """

    def __init__(self, rate: Rate, shared: Literal["row", "column"] | None = None):
        rate = rate if isinstance(rate, ByPhase) else ByPhase[float](train=rate, infer=0.0)
        super().__init__(rate.train)
        self.p_infer = rate.infer
        self.shared = shared

    @property
    def rate(self) -> float:
        """The rate of this moment, for operations that drop inside."""
        return self.p if self.is_training else self.p_infer

    def forward(self, x: Tensor) -> Tensor:
        rate = self.rate
        if rate == 0 or self.shared is None:
            return F.dropout(x, rate, training=rate > 0)
        size, rows, columns, _ = x.shape
        shape = (size, rows, 1, 1) if self.shared == "row" else (size, 1, columns, 1)
        return x * F.dropout(torch.ones(shape, dtype=x.dtype, device=x.device), rate)

    def extra_repr(self) -> str:
        return f"p={self.p}, p_infer={self.p_infer}, shared={self.shared}"
