"""Triangle multiplication, the whole update from LayerNorm to gate (AlphaFold 3, algorithms 12 and 13)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Direction = Literal["outgoing", "incoming"]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Over the last dimension, in x's dtype; inside it is float32 as under autocast: on a CPU, torch sums up a narrow
    norm's gradients in its own precision, to an error of several per cent."""
    precise = torch.promote_types(x.dtype, torch.float32)
    return F.layer_norm(x.to(precise), x.shape[-1:], weight.to(precise), bias.to(precise)).to(x.dtype)


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
    """Edge ij from the two other sides ik and jk (outgoing), or ki and kj (incoming), of all triangles over it.

    edge: [B, N, N, c_z]. mask: [B, N, N], 1 = present. norm_in, norm_out: weight and bias of a LayerNorm, [c_z], [D].
    p_in, g_in: [2 D, c_z], projection and gate of both sides, the first D rows for ik (ki). p_out, g_out: [c_z, D] and
    [c_z, c_z]. Returns the update [B, N, N, c_z], without the residual.
    """
    normed = layer_norm(edge, *norm_in)
    sides = F.linear(normed, p_in) * F.linear(normed, g_in).sigmoid()
    a, b = (sides * mask[..., None].to(sides.dtype)).chunk(2, dim=-1)
    triangles = torch.einsum("bikd,bjkd->bijd" if direction == "outgoing" else "bkid,bkjd->bijd", a, b)
    return F.linear(layer_norm(triangles, *norm_out), p_out) * F.linear(normed, g_out).sigmoid()
