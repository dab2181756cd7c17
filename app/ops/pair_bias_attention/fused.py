"""Attention with pair bias by torch's own fused attention, which keeps neither logits nor weights where it can."""

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from app.devices import full_precision
from app.ops.pair_bias_attention.reference import NEGATIVE

# Without cuDNN's, which gives NaN gradients for some masks (pytorch 196678).
_SOUND = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def pair_bias_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor) -> Tensor:
    """As the reference."""
    with full_precision(q.device), sdpa_kernel(_SOUND):
        masked = bias.float() + NEGATIVE * (1 - key_mask.float())[:, None, None, :]
        masked = masked.contiguous()  # heads come last from a projection, and CUDA's fused kernels want keys last
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), masked).to(v.dtype)
