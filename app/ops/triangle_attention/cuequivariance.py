"""Triangle attention by NVIDIA's cuEquivariance, versions 0.10 to 0.13."""

import cuequivariance_torch
from torch import Tensor

from app.devices import current, full_precision
from app.ops.absent import filled
from app.ops.packages import hush_cuequivariance

hush_cuequivariance()


def triangle_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """As the reference, in v's dtype with float32 accumulation. The package copies q, k and v where heads come last."""
    keys, some = filled(mask)
    with current(q.device), full_precision(q.device):
        q, k = q.to(v.dtype), k.to(v.dtype)
        out = cuequivariance_torch.triangle_attention(
            q, k, v, bias[:, None], mask=keys[:, :, None, None], scale=q.shape[-1] ** -0.5
        )
        return out * some[:, :, None, None, None]
