"""torch's own fused attention, by those of the kernels behind it that are sound."""

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from app.ops import outline

SOUND = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's, which gives NaN gradients for some masks (pytorch 196678)."""


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """`scaled_dot_product_attention`. q, k: [B, H, N, D]; v: [B, H, N, E]; bias on the logits, [B, H, N, N] or what
    broadcasts to it; scale of the logits, D^-1/2 by default. Returns [B, H, N, E]."""
    attend = F.scaled_dot_product_attention
    if (outlined := outline.current()) is not None:
        attend = outlined.attention
    with sdpa_kernel(SOUND):
        return attend(q, k, v, bias, dropout_p=dropout, scale=scale)
