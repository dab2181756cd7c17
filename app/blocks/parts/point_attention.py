"""Invariant point attention as a module: owns the weights, calls the operation (AlphaFold 2, algorithm 22)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.blocks.parts.dropout import Dropout
from app.blocks.parts.linear import Linear
from app.devices import compute_dtype, full_precision
from app.ops.invariant_point_attention import invariant_point_attention
from app.phase import Rate
from app.types import Frames

SOFTPLUS_INVERSE_OF_ONE = 0.541324854612918
_NORM_EPSILON = 1e-8


def local_points(flat: Tensor, num_heads: int) -> Tensor:
    """[B, N, 3 H P], all x, then all y, then all z -> [B, N, H, P, 3] in float32."""
    return torch.stack(flat.float().chunk(3, dim=-1), dim=-1).unflatten(2, (num_heads, -1))


def joined_features(scalars: Tensor, points: Tensor, pair_values: Tensor) -> Tensor:
    """What the last layer reads: [B, N, H, C], [B, N, H, Pv, 3] and [B, N, H, c_d] -> [B, N, H (C + 4 Pv + c_d)].

    Points come as all x, all y, all z, and their distances from the frame's origin.
    """
    lengths = (points.square().sum(-1) + _NORM_EPSILON).sqrt()
    x, y, z = points.unbind(-1)
    return torch.cat([part.flatten(-2) for part in (scalars, x, y, z, lengths, pair_values)], dim=-1)


class InvariantPointAttention(nn.Module):
    """Multiflow's variant: the pair channel is narrowed to a quarter before it is gathered, and points are laid out as
    all x, then all y, then all z.
    """

    operations = ("invariant_point_attention",)

    def __init__(
        self,
        c_s: int,
        c_z: int,
        num_heads: int,
        head_width: int,
        num_qk_points: int,
        num_v_points: int,
        dropout: Rate = 0.0,
    ):
        super().__init__()
        self.num_heads, self.num_qk_points = num_heads, num_qk_points
        self.dropout = Dropout(dropout)
        self.gamma = nn.Parameter(torch.full((num_heads,), SOFTPLUS_INVERSE_OF_ONE))
        self.q = Linear(c_s, num_heads * head_width)
        self.kv = Linear(c_s, 2 * num_heads * head_width)
        self.q_points = Linear(c_s, 3 * num_heads * num_qk_points)
        self.kv_points = Linear(c_s, 3 * num_heads * (num_qk_points + num_v_points))
        self.pair_bias = Linear(c_z, num_heads)
        self.pair_down = Linear(c_z, c_z // 4)
        self.out = Linear(num_heads * (head_width + 4 * num_v_points + c_z // 4), c_s, init="zero")

    def forward(self, node: Tensor, edge: Tensor, frames: Frames, mask: Tensor) -> Tensor:
        """node: [B, N, c_s]; edge: [B, N, N, c_z]; frames: [B, N], nanometre; mask: [B, N] -> [B, N, c_s]."""
        q = self.q(node).unflatten(-1, (self.num_heads, -1))
        k, v = self.kv(node).unflatten(-1, (self.num_heads, -1)).chunk(2, dim=-1)
        q_points = local_points(self.q_points(node), self.num_heads)
        kv_points = local_points(self.kv_points(node), self.num_heads)
        k_points, v_points = kv_points.tensor_split([self.num_qk_points], 3)
        edge = edge.to(compute_dtype(edge))  # float32 where a residual stream of pairs is kept so
        with full_precision(node.device):
            attended = invariant_point_attention(
                *(q, k, v, q_points, k_points, v_points, edge),
                *(self.pair_bias.weight, self.pair_bias.bias, self.pair_down.weight, self.pair_down.bias),
                F.softplus(self.gamma),
                frames,
                mask,
                self.dropout.rate,
            )
            features = joined_features(*attended)
        return self.out(features)
