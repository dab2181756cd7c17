"""Attention with pair bias by torch's own fused attention, which keeps neither logits nor weights where it can."""

import torch
from torch import Tensor

from app.devices import NVIDIA, full_precision, kind
from app.ops.absent import as_bias, filled
from app.ops.sdpa import fused_attention


def pair_bias_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor) -> Tensor:
    """As the reference; half precision stays so on an NVIDIA GPU, whose kernel accumulates in float32."""
    dtype = v.dtype if kind(q.device) == NVIDIA else torch.promote_types(v.dtype, torch.float32)
    keys, some = filled(key_mask)
    with full_precision(q.device):
        # Heads come last from a projection, and CUDA's fused kernels want keys last.
        masked = (bias.to(dtype) + as_bias(keys, dtype)[:, None, None, :]).contiguous()
        out = fused_attention(q.to(dtype), k.to(dtype), v.to(dtype), masked)
        return (out * some[:, None, None, None]).to(v.dtype)
