"""Attention over the nodes with a bias from the edges (AlphaFold 3, algorithm 24, lines 8 and 9 less the gate)."""

import torch
from torch import Tensor

from app.devices import full_precision

NEGATIVE = -1e9
"""Added to the logits of absent keys: finite, so that an example without any is no NaN before it is set to 0."""


def pair_bias_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor) -> Tensor:
    """q, k, v: [B, H, N, D]. bias: [B, H, N, N], for query i and key j. key_mask: [B, N], 1 = present.

    Returns [B, H, N, D] in v's dtype; 0, and with it all gradients, in an example without any key. All is computed in
    float32 under any autocast.
    """
    with full_precision(q.device):
        precise = torch.promote_types(v.dtype, torch.float32)
        logits = torch.einsum("bhid,bhjd->bhij", q.to(precise), k.to(precise)) * q.shape[-1] ** -0.5
        logits = logits + bias.to(precise) + NEGATIVE * (1 - key_mask.to(precise))[:, None, None, :]
        weights = torch.softmax(logits, dim=-1) * key_mask.any(-1)[:, None, None, None]
        return torch.einsum("bhij,bhjd->bhid", weights, v.to(precise)).to(v.dtype)
