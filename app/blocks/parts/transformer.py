"""Post-norm transformer encoder over the nodes (Vaswani et al. 2017): ReLU, feed-forward as wide as the model."""

import torch.nn.functional as F
from torch import Tensor, nn

from app.blocks.parts.dropout import Dropout
from app.ops.self_attention import self_attention
from app.phase import Rate


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, the residual sum and a LayerNorm."""

    operations = ("self_attention",)

    def __init__(self, width: int, num_heads: int, dropout: Rate):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.bias)
        self.hidden = nn.Linear(width, width)
        self.contract = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, node: Tensor, mask: Tensor) -> Tensor:
        """node: [B, N, width], mask: [B, N] -> [B, N, width]; absent residues are attended by none."""
        q, k, v = self.qkv(node).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = self_attention(q, k, v, mask, self.dropout.rate)
        node = self.norm_attention(node + self.dropout(self.out(attended.transpose(1, 2).flatten(-2))))
        feed_forward = self.contract(self.dropout(F.relu(self.hidden(node))))
        return self.norm_feed_forward(node + self.dropout(feed_forward))


class Transformer(nn.Module):
    """A stack of transformer layers, [B, N, width] -> [B, N, width]."""

    def __init__(self, width: int, num_heads: int, num_layers: int, dropout: Rate):
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(width, num_heads, dropout) for _ in range(num_layers))

    def forward(self, node: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            node = layer(node, mask)
        return node
