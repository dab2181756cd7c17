"""Triangle multiplication with only its two sides and their product kept: about a third of the reference's memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.devices import NVIDIA, compute_dtype, kind
from app.ops.recompute import by_rows, rows_within
from app.ops.triangle_multiplication import reference
from app.ops.triangle_multiplication.reference import Direction, layer_norm

LARGEST = 2**21
"""Entries of an intermediate tensor of width c_z (8 MiB). Edges of at most that size are treated in one go."""

LARGEST_ON_GPU = 2**25
"""The same where slices have to keep a GPU busy: 512 residues in one go. With slices as on a CPU, an H100 takes 5 times
as long there, forward and backward in bfloat16, in half the memory."""


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
    """As the reference; what belongs to one edge alone is done in slices of rows of at most so many entries."""
    largest = LARGEST_ON_GPU if kind(edge.device) == NVIDIA else LARGEST
    if edge.numel() <= largest:
        weights = norm_in, p_in, g_in, norm_out, p_out, g_out
        return reference.triangle_multiplication(edge, mask, direction, *weights)
    rows = rows_within(largest, edge[:, 0].numel())
    sides = _sides(rows, [edge, mask.to(compute_dtype(edge))], [*norm_in, p_in, g_in])
    a, b = sides.permute(0, 3, 1, 2).chunk(2, dim=1)
    triangles = a @ b.mT if direction == "outgoing" else a.mT @ b
    return _update(rows, [triangles.permute(0, 2, 3, 1), edge], [*norm_in, *norm_out, p_out, g_out])


@by_rows
def _sides(edge: Tensor, mask: Tensor, norm_weight: Tensor, norm_bias: Tensor, p_in: Tensor, g_in: Tensor) -> Tensor:
    """[B, rows, N, 2 D], made in the mask's dtype."""
    x = layer_norm(edge, norm_weight, norm_bias)
    return _linear(x, p_in, mask.dtype) * _linear(x, g_in, mask.dtype).sigmoid() * mask[..., None]


@by_rows
def _update(
    triangles: Tensor,
    edge: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    p_out: Tensor,
    g_out: Tensor,
) -> Tensor:
    """[B, rows, N, c_z], made in the triangles' dtype."""
    x, normed = layer_norm(triangles, out_weight, out_bias), layer_norm(edge, in_weight, in_bias)
    return _linear(x, p_out, x.dtype) * _linear(normed, g_out, x.dtype).sigmoid()


def _linear(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """As under autocast of that type."""
    return F.linear(x.to(dtype), weight.to(dtype))
