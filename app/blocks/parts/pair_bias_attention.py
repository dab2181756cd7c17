"""Attention over the nodes with a bias from the edges, as a module (AlphaFold 3, algorithm 24)."""

from torch import Tensor, nn

from app.blocks.parts.linear import Linear
from app.devices import full_precision
from app.ops.pair_bias_attention import pair_bias_attention


class AttentionPairBias(nn.Module):
    """Gated, pre-norm, in float32 throughout, as Boltz-2 runs it; the heads share c_s. Gates start half open.

    A bias of the edges' LayerNorm would shift all logits of a row alike, which softmax cancels: there is none.
    """

    operations = ("pair_bias_attention",)

    def __init__(self, c_s: int, c_z: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(c_s)
        self.norm_edge = nn.LayerNorm(c_z, bias=False)
        self.q = Linear(c_s, c_s)
        self.k = Linear(c_s, c_s, bias=False)
        self.v = Linear(c_s, c_s, bias=False)
        self.pair_bias = Linear(c_z, num_heads, bias=False)
        self.gate = Linear(c_s, c_s, init="zero", bias=False)
        self.out = Linear(c_s, c_s, init="zero", bias=False)

    def forward(self, node: Tensor, edge: Tensor, mask: Tensor) -> Tensor:
        """node: [B, N, c_s], edge: [B, N, N, c_z], mask: [B, N] -> the update [B, N, c_s] in float32."""
        with full_precision(node.device):
            node = self.norm(node.float())
            q, k, v = (
                layer(node).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
            )
            bias = self.pair_bias(self.norm_edge(edge.float())).permute(0, 3, 1, 2)
            attended = pair_bias_attention(q, k, v, bias, mask).transpose(1, 2).flatten(-2)
            return self.out(attended * self.gate(node).sigmoid())
