"""Triangle multiplication by NVIDIA's cuEquivariance, versions 0.10 to 0.13."""

import cuequivariance_torch
import torch
from torch import Tensor

from app.devices import current, under_autocast
from app.ops.triangle_multiplication.reference import Direction


def triangle_multiplication(
    edge: Tensor,
    mask: Tensor,
    direction: Direction,
    norm_in: tuple[Tensor, Tensor],
    p_in: Tensor,
    g_in: Tensor,
    norm_out: tuple[Tensor, Tensor],
    p_out: Tensor,
    g_out: Tensor,
) -> Tensor:
    """As the reference. Weights come in the precision of the products: only then do the package's tuned kernels run."""
    device, dtype = edge.device, edge.dtype
    autocast = under_autocast(device)
    narrow = torch.get_autocast_dtype(device.type) if autocast else dtype
    norms = [(x if autocast else x.to(dtype)).contiguous() for x in (*norm_in, *norm_out)]
    p_in, g_in, p_out, g_out = (x.to(narrow).contiguous() for x in (p_in, g_in, p_out, g_out))
    with current(device):
        out = cuequivariance_torch.triangle_multiplicative_update(
            edge.contiguous(),
            direction=direction,
            mask=mask.to(narrow).contiguous(),
            norm_in_weight=norms[0],
            norm_in_bias=norms[1],
            p_in_weight=p_in,
            g_in_weight=g_in,
            norm_out_weight=norms[2],
            norm_out_bias=norms[3],
            p_out_weight=p_out,
            g_out_weight=g_out,
        )
    return _WithWholeGradient.apply(out)


class _WithWholeGradient(torch.autograd.Function):
    """The same. The package's backward pass reads its gradient as if it lay together in memory."""

    @staticmethod
    def forward(ctx, out: Tensor) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.contiguous()
