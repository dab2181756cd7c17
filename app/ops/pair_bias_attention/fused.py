"""Attention with pair bias by torch's own fused attention, which keeps neither logits nor weights where it can."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from app.devices import NVIDIA, full_precision
from app.ops.absent import as_bias, filled
from app.ops.sdpa import SOUND


def pair_bias_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor) -> Tensor:
    """As the reference; half precision stays so on an NVIDIA GPU, whose kernel accumulates in float32."""
    dtype = v.dtype if q.device.type == NVIDIA else torch.promote_types(v.dtype, torch.float32)
    keys, some = filled(key_mask)
    with full_precision(q.device), sdpa_kernel(SOUND):
        # Heads come last from a projection, and CUDA's fused kernels want keys last.
        masked = (bias.to(dtype) + as_bias(keys, dtype)[:, None, None, :]).contiguous()
        out = F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype), masked)
        return (out * some[:, None, None, None]).to(v.dtype)
