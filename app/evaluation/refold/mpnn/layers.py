"""ProteinMPNN's message passing: its encoder's layers update residues and edges, its decoder's residues alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.evaluation.refold.mpnn.features import of_neighbours

_SCALE = 30.0
"""Messages are summed over the neighbours and divided by this, however many there are."""


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.W_in = nn.Linear(width, 4 * width)
        self.W_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.W_out(F.gelu(self.W_in(x)))


class NodeUpdate(nn.Module):
    """A residue takes up messages from its neighbours, then a transition."""

    def __init__(self, width: int, context: int):
        """context: channels of what a message is made from, beside the residue itself."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.W1 = nn.Linear(width + context, width)
        self.W2 = nn.Linear(width, width)
        self.W3 = nn.Linear(width, width)
        self.dense = FeedForward(width)

    def forward(self, node: Tensor, context: Tensor, there: Tensor) -> Tensor:
        """node: [..., D]; context: [..., K, context]; there: [..., K] bool, the neighbour exists. Returns [..., D]."""
        messages = _three_layers(_beside(node, context), self.W1, self.W2, self.W3) * there[..., None]
        node = self.norm1(node + messages.sum(-2) / _SCALE)
        return self.norm2(node + self.dense(node))


class EncoderLayer(NodeUpdate):
    def __init__(self, width: int):
        super().__init__(width, 2 * width)
        self.norm3 = nn.LayerNorm(width)
        self.W11 = nn.Linear(3 * width, width)
        self.W12 = nn.Linear(width, width)
        self.W13 = nn.Linear(width, width)

    def encode(self, node: Tensor, edge: Tensor, nearest: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """node: [B, N, D]; edge: [B, N, K, D]; nearest: [B, N, K]; there: [B, N, K] bool. Returns node and edge."""
        node = self(node, torch.cat([edge, of_neighbours(node, nearest)], dim=-1), there)
        seen = _beside(node, torch.cat([edge, of_neighbours(node, nearest)], dim=-1))
        return node, self.norm3(edge + _three_layers(seen, self.W11, self.W12, self.W13))


class DecoderLayer(NodeUpdate):
    """Its context is the edge, the neighbour's residue type and the neighbour, in this order."""

    def __init__(self, width: int):
        super().__init__(width, 3 * width)


def _three_layers(x: Tensor, first: nn.Linear, second: nn.Linear, third: nn.Linear) -> Tensor:
    return third(F.gelu(second(F.gelu(first(x)))))


def _beside(node: Tensor, context: Tensor) -> Tensor:
    """[..., D] and [..., K, C] -> [..., K, D + C]."""
    return torch.cat([node[..., None, :].expand(*context.shape[:-1], -1), context], dim=-1)
