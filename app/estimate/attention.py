"""torch's fused attention on tensors without numbers: by the kernel that it would have on the device."""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from app.devices import CPU, NVIDIA, autocast_dtype, kind, under_autocast
from app.ops.select import wants_gradient

_ops = torch.ops.aten


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """Arguments and result as of `app.ops.sdpa.fused_attention`."""
    if under_autocast(q.device):
        q, k, v = (x.to(autocast_dtype(q.device)) for x in (q, k, v))
    if kind(q.device) == NVIDIA:  # the one of its kernels that serves every case; none takes more memory
        if bias is not None:
            bias = bias.to(q.dtype).expand(*q.shape[:-1], k.shape[-2])
        keeps = wants_gradient(q, k, v, bias)
        return _ops._scaled_dot_product_efficient_attention(q, k, v, bias, keeps, dropout, scale=scale)[0]
    if _is_fused_on_cpu(q, k, v, bias, dropout):
        return _ops._scaled_dot_product_flash_attention_for_cpu(q, k, v, dropout, attn_mask=bias, scale=scale)[0]
    return _ops._scaled_dot_product_attention_math(q, k, v, bias, dropout, scale=scale)[0]


def _is_fused_on_cpu(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> bool:
    """By torch's own choice, which it makes for tensors that are there: two residues of the same widths and types."""

    def small(x: Tensor, *shape: int) -> Tensor:
        made = torch.zeros(*shape, dtype=x.dtype, device=CPU)
        return made.requires_grad_(x.requires_grad and torch.is_grad_enabled())

    heads = [small(x, 1, 1, 2, x.shape[-1]) for x in (q, k, v)]
    on_logits = None if bias is None else small(bias, 1, 1, min(2, bias.shape[-2]), min(2, bias.shape[-1]))
    return torch._fused_sdp_choice(*heads, on_logits, dropout) == SDPBackend.FLASH_ATTENTION.value
