"""Attention with pair bias as one row of cuEquivariance's triangle attention.

What the package itself calls attention with pair bias includes norm, gate and projections.
"""

import cuequivariance_torch
from torch import Tensor

from app.devices import current, full_precision
from app.ops.absent import filled
from app.ops.packages import hush_cuequivariance

hush_cuequivariance()


def pair_bias_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, key_mask: Tensor) -> Tensor:
    """As the reference, in v's dtype with float32 accumulation."""
    keys, some = filled(key_mask)
    with current(q.device), full_precision(q.device):
        row = (x.to(v.dtype)[:, None] for x in (q, k, v))
        mask = keys[:, None, None, None]
        out = cuequivariance_torch.triangle_attention(*row, bias[:, None], mask=mask, scale=q.shape[-1] ** -0.5)
        return out[:, 0] * some[:, None, None, None]
