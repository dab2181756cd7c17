"""The two tracks of a pairformer: one updates the edges, the other the nodes (AlphaFold 3, algorithm 17)."""

from torch import Tensor, nn

from app.blocks.parts.gated_transition import GatedTransition
from app.blocks.parts.pair_bias_attention import AttentionPairBias
from app.blocks.parts.triangle_modules import TriangleAttentions, TriangleMultiplications
from app.phase import Rate


class PairTrack(nn.Module):
    """Triangle multiplications, triangle attentions and a transition (lines 1 to 5)."""

    def __init__(self, c_z: int, num_heads: int, head_width: int, factor: int, dropout: Rate):
        super().__init__()
        self.multiplication = TriangleMultiplications(c_z, dropout)
        self.attention = TriangleAttentions(c_z, num_heads, head_width, dropout)
        self.transition = GatedTransition(c_z, factor)

    def forward(self, edge: Tensor, mask: Tensor) -> Tensor:
        """edge: [B, N, N, c_z], mask: [B, N, N] -> edge; absent edges stay as they are."""
        edge = self.attention(self.multiplication(edge, mask), mask)
        return edge + self.transition(edge) * mask[..., None]


class NodeTrack(nn.Module):
    """Attention with pair bias and a transition (lines 6 and 7)."""

    def __init__(self, c_s: int, c_z: int, num_heads: int, factor: int):
        super().__init__()
        self.attention = AttentionPairBias(c_s, c_z, num_heads)
        self.transition = GatedTransition(c_s, factor)

    def forward(self, node: Tensor, edge: Tensor, mask: Tensor) -> Tensor:
        """node: [B, N, c_s], edge: [B, N, N, c_z], mask: [B, N] -> node; absent nodes stay as they are."""
        node = node + self.attention(node, edge, mask) * mask[..., None]
        return node + self.transition(node) * mask[..., None]


def check_heads(c_s: int, num_heads: int) -> None:
    """Raises ValueError for a node width that the heads cannot share."""
    if c_s % num_heads:
        raise ValueError(f"c_s={c_s} is not divisible by num_heads={num_heads}")
