"""Softmax attention over one sequence with a key mask: the transformer inside IPA blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.ops.absent import as_bias


def self_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, dropout: float = 0.0) -> Tensor:
    """q, k, v: [B, H, N, D]; key_mask: [B, N], 1 = present; dropout: rate on the attention weights.

    Returns [B, H, N, D], 0, and with it all gradients, in an example without any key (Vaswani et al. 2017, eq. 1).
    """
    logits = (q @ k.mT) * q.shape[-1] ** -0.5
    logits = logits + as_bias(key_mask > 0, logits.dtype)[:, None, None, :]
    weights = torch.softmax(logits, dim=-1) * key_mask.any(-1)[:, None, None, None]
    return F.dropout(weights, dropout, training=dropout > 0) @ v
