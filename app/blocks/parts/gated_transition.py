"""The transition of AlphaFold 3 (algorithm 11): LayerNorm and a feed-forward layer gated by SiLU (Shazeer 2020)."""

import torch.nn.functional as F
from torch import Tensor, nn

from app.blocks.parts.linear import Linear


class GatedTransition(nn.Module):
    """Pre-norm, [..., width] -> the update [..., width]; `factor` times as wide inside."""

    def __init__(self, width: int, factor: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = Linear(width, factor * width, bias=False)
        self.hidden = Linear(width, factor * width, bias=False)
        self.out = Linear(factor * width, width, init="zero", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.out(F.silu(self.gate(x)) * self.hidden(x))
