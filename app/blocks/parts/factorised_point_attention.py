"""Invariant point attention without a pair tensor, as a module: owns the weights, calls the operation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.blocks.parts.linear import Linear
from app.blocks.parts.point_attention import SOFTPLUS_INVERSE_OF_ONE, joined_features, local_points
from app.devices import full_precision
from app.ops.factorised_attention import factorised_attention
from app.types import Frames


class FactorisedPointAttention(nn.Module):
    """`InvariantPointAttention` whose pair representation is a sum of `rank` products z1_i z2_j (Liu et al. 2025).

    Both factors are read from the node representation: for every head what makes the pair bias, and `pair_width`
    channels that make the pair values. Where a constant would add the same to the logits of all keys (k, z2), and where
    it would only repeat the bias of `out` (v), there is none.
    """

    operations = ("factorised_attention",)

    def __init__(
        self,
        c_s: int,
        num_heads: int,
        head_width: int,
        num_qk_points: int,
        num_v_points: int,
        rank: int,
        pair_width: int,
    ):
        super().__init__()
        self.num_heads, self.num_qk_points, self.rank = num_heads, num_qk_points, rank
        self.gamma = nn.Parameter(torch.full((num_heads,), SOFTPLUS_INVERSE_OF_ONE))
        self.q = Linear(c_s, num_heads * head_width)
        self.kv = Linear(c_s, 2 * num_heads * head_width, bias=False)
        self.q_points = Linear(c_s, 3 * num_heads * num_qk_points)
        self.kv_points = Linear(c_s, 3 * num_heads * (num_qk_points + num_v_points))
        self.z1 = Linear(c_s, rank * (num_heads + pair_width))
        self.z2 = Linear(c_s, rank * (num_heads + pair_width), bias=False)
        self.out = Linear(num_heads * (head_width + 4 * num_v_points + pair_width), c_s, init="zero")

    def _factor(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, R (H + D)] -> that of the bias [B, N, H, R] and that of the values [B, N, R, D]."""
        bias, values = flat.unflatten(-1, (self.rank, -1)).tensor_split([self.num_heads], -1)
        return bias.transpose(-1, -2), values

    def forward(self, node: Tensor, frames: Frames, mask: Tensor) -> Tensor:
        """node: [B, N, c_s]; frames: [B, N], nanometre; mask: [B, N] -> [B, N, c_s]."""
        q = self.q(node).unflatten(-1, (self.num_heads, -1))
        k, v = self.kv(node).unflatten(-1, (self.num_heads, -1)).chunk(2, dim=-1)
        q_points = local_points(self.q_points(node), self.num_heads)
        k_points, v_points = local_points(self.kv_points(node), self.num_heads).tensor_split([self.num_qk_points], 3)
        bias_left, value_left = self._factor(self.z1(node))
        bias_right, value_right = self._factor(self.z2(node))
        with full_precision(node.device):
            attended = factorised_attention(
                *(q, k, v, q_points, k_points, v_points),
                *(bias_left, bias_right, value_left, value_right),
                F.softplus(self.gamma),
                frames,
                mask,
            )
            features = joined_features(*attended)
        return self.out(features)
