"""Self-attention by torch's own fused attention."""

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from app.ops.absent import as_bias, filled
from app.ops.sdpa import SOUND


def self_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, dropout: float = 0.0) -> Tensor:
    """As the reference, where the weights that are dropped out are others."""
    keys, some = filled(key_mask)
    with sdpa_kernel(SOUND):
        out = F.scaled_dot_product_attention(q, k, v, as_bias(keys, q.dtype)[:, None, None, :], dropout_p=dropout)
    return out * some[:, None, None, None]
