"""Softmax attention over one sequence with a key mask: the transformer inside IPA blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor

NEGATIVE = -1e9
"""Added to the logits of absent keys: finite, so that a row without any key gives an average and no NaN."""


def self_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, dropout: float = 0.0) -> Tensor:
    """q, k, v: [B, H, N, D]; key_mask: [B, N], 1 = present; dropout: rate on the attention weights.

    Returns [B, H, N, D] (Vaswani et al. 2017, eq. 1).
    """
    logits = (q @ k.mT) * q.shape[-1] ** -0.5 + NEGATIVE * (1 - key_mask.to(q.dtype))[:, None, None, :]
    weights = torch.softmax(logits, dim=-1)
    return F.dropout(weights, dropout, training=dropout > 0) @ v
