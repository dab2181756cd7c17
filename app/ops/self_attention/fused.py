"""Self-attention by torch's own fused attention."""

from torch import Tensor

from app.ops.absent import as_bias, filled
from app.ops.sdpa import fused_attention


def self_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, dropout: float = 0.0) -> Tensor:
    """As the reference, where the weights that are dropped out are others."""
    keys, some = filled(key_mask)
    out = fused_attention(q, k, v, as_bias(keys, q.dtype)[:, None, None, :], dropout)
    return out * some[:, None, None, None]
