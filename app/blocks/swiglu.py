"""Pre-norm transition with a gated hidden layer (SwiGLU, Shazeer 2020; AlphaFold 3, algorithm 11)."""

import torch.nn.functional as F
from torch import Tensor, nn

from app.blocks.linear import Linear


class Transition(nn.Module):
    """What a residual branch adds to node or edge: fc3(silu(fc1(x)) * fc2(x)), x normed. No biases."""

    def __init__(self, width: int, factor: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = Linear(width, factor * width, bias=False)
        self.fc2 = Linear(width, factor * width, bias=False)
        self.fc3 = Linear(factor * width, width, init="zero", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width], to be added to x."""
        x = self.norm(x)
        return self.fc3(F.silu(self.fc1(x)) * self.fc2(x))
