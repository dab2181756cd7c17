"""LayerNorm that is told the time: t gives what it scales and shifts by (DiT, Peebles & Xie 2023, section 3.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from app.blocks.parts.embedding import time_embedding
from app.blocks.parts.linear import Linear

_TIME_WIDTH = 32
"""Of the embedding of one of the three times."""


class AdaptiveLayerNorm(nn.Module):
    """norm(x) * (1 + scale(t)) + shift(t), by channel; scale and shift start at 0, whatever the time."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.hidden = Linear(3 * _TIME_WIDTH, width)
        self.scale_shift = Linear(width, 2 * width, init="zero")

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: [B, ..., width]; t: [B, 3], the times of rotations, translations and tokens -> [B, ..., width]."""
        times = time_embedding(t[..., None], _TIME_WIDTH).flatten(1)
        scale, shift = (
            part.view(len(t), *[1] * (x.dim() - 2), -1)
            for part in self.scale_shift(F.silu(self.hidden(times))).chunk(2, dim=-1)
        )
        return self.norm(x) * (1 + scale) + shift
