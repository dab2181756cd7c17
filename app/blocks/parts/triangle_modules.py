"""Triangle updates of the edges as modules: they own the weights and call the operations (AlphaFold 3, as Boltz-2)."""

from torch import Tensor, nn

from app.blocks.parts.dropout import Dropout
from app.blocks.parts.linear import Linear
from app.ops.triangle_attention import triangle_attention
from app.ops.triangle_multiplication import Direction, triangle_multiplication
from app.phase import Rate


class TriangleMultiplication(nn.Module):
    """Algorithm 12 (outgoing) or 13 (incoming), as wide inside as the edges. Gates start half open."""

    operations = ("triangle_multiplication",)

    def __init__(self, c_z: int, direction: Direction):
        super().__init__()
        self.direction: Direction = direction
        self.norm_in = nn.LayerNorm(c_z)
        self.p_in = Linear(c_z, 2 * c_z, bias=False)
        self.g_in = Linear(c_z, 2 * c_z, init="zero", bias=False)
        self.norm_out = nn.LayerNorm(c_z)
        self.p_out = Linear(c_z, c_z, init="zero", bias=False)
        self.g_out = Linear(c_z, c_z, init="zero", bias=False)

    def forward(self, edge: Tensor, mask: Tensor) -> Tensor:
        """edge: [B, N, N, c_z], mask: [B, N, N] -> the update [B, N, N, c_z]."""
        return triangle_multiplication(
            edge,
            mask,
            self.direction,
            (self.norm_in.weight, self.norm_in.bias),
            self.p_in.weight,
            self.g_in.weight,
            (self.norm_out.weight, self.norm_out.bias),
            self.p_out.weight,
            self.g_out.weight,
        )


class TriangleAttention(nn.Module):
    """Algorithm 14, around the starting node; on transposed edges it is algorithm 15. Gates start half open."""

    operations = ("triangle_attention",)

    def __init__(self, c_z: int, num_heads: int, head_width: int):
        super().__init__()
        self.num_heads = num_heads
        width = num_heads * head_width
        self.norm = nn.LayerNorm(c_z)
        self.q = Linear(c_z, width, bias=False)
        self.k = Linear(c_z, width, bias=False)
        self.v = Linear(c_z, width, bias=False)
        self.pair_bias = Linear(c_z, num_heads, bias=False)
        self.gate = Linear(c_z, width, init="zero", bias=False)
        self.out = Linear(width, c_z, init="zero", bias=False)

    def forward(self, edge: Tensor, mask: Tensor) -> Tensor:
        """edge: [B, N, N, c_z], mask: [B, N, N] -> the update [B, N, N, c_z]; 0 where no key is there."""
        edge = self.norm(edge)
        q, k, v = (
            layer(edge).unflatten(-1, (self.num_heads, -1)).transpose(2, 3) for layer in (self.q, self.k, self.v)
        )
        attended = triangle_attention(q, k, v, self.pair_bias(edge).permute(0, 3, 1, 2), mask)
        return self.out(attended.transpose(2, 3).flatten(-2) * self.gate(edge).sigmoid())


class TriangleMultiplications(nn.Module):
    """Outgoing, then incoming, each with its residual and a dropout shared along rows (algorithm 17, lines 1 and 2)."""

    def __init__(self, c_z: int, dropout: Rate):
        super().__init__()
        self.outgoing = TriangleMultiplication(c_z, "outgoing")
        self.incoming = TriangleMultiplication(c_z, "incoming")
        self.dropout = Dropout(dropout, shared="row")

    def forward(self, edge: Tensor, mask: Tensor) -> Tensor:
        """edge: [B, N, N, c_z], mask: [B, N, N] -> edge; absent edges stay as they are."""
        for update in (self.outgoing, self.incoming):
            edge = edge + self.dropout(update(edge, mask)) * mask[..., None]
        return edge


class TriangleAttentions(nn.Module):
    """Around the starting node, then the ending node, each with its residual (algorithm 17, lines 3 and 4).

    Dropout is shared along rows after the first and along columns after the second.
    """

    def __init__(self, c_z: int, num_heads: int, head_width: int, dropout: Rate):
        super().__init__()
        self.starting = TriangleAttention(c_z, num_heads, head_width)
        self.ending = TriangleAttention(c_z, num_heads, head_width)
        self.dropout_rows = Dropout(dropout, shared="row")
        self.dropout_columns = Dropout(dropout, shared="column")

    def forward(self, edge: Tensor, mask: Tensor) -> Tensor:
        """edge: [B, N, N, c_z], mask: [B, N, N] -> edge; absent edges stay as they are."""
        edge = edge + self.dropout_rows(self.starting(edge, mask)) * mask[..., None]
        around_end = self.ending(edge.transpose(1, 2), mask.mT).transpose(1, 2)
        return edge + self.dropout_columns(around_end) * mask[..., None]
