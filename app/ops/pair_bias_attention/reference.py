"""Attention over the nodes with a bias from the edges (AlphaFold 3, algorithm 24, lines 8 and 9 less the gate)."""

import torch
from torch import Tensor

from app.devices import full_precision

NEGATIVE = -1e9
"""Added to the logits of absent keys: finite, so that an example without any gives an average and no NaN."""


def pair_bias_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor) -> Tensor:
    """q, k, v: [B, H, N, D]. bias: [B, H, N, N], for query i and key j. key_mask: [B, N], 1 = present.

    Returns [B, H, N, D] in v's dtype; all is computed in float32 under any autocast. Without any key the values are
    finite and without meaning.
    """
    with full_precision(q.device):
        logits = torch.einsum("bhid,bhjd->bhij", q.float(), k.float()) * q.shape[-1] ** -0.5
        logits = logits + bias.float() + NEGATIVE * (1 - key_mask.float())[:, None, None, :]
        weights = torch.softmax(logits, dim=-1)
        return torch.einsum("bhij,bhjd->bhid", weights, v.float()).to(v.dtype)
