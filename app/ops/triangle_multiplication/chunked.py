"""Triangle multiplication with only its two sides and their product kept: about a third of the reference's memory."""

import torch.nn.functional as F
from torch import Tensor

from app.devices import NVIDIA
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
    largest = LARGEST_ON_GPU if edge.device.type == NVIDIA else LARGEST
    if edge.numel() <= largest:
        weights = norm_in, p_in, g_in, norm_out, p_out, g_out
        return reference.triangle_multiplication(edge, mask, direction, *weights)

    def normed(edge: Tensor) -> Tensor:
        return layer_norm(edge, *norm_in)

    def sides(edge: Tensor, mask: Tensor) -> Tensor:
        """[B, rows, N, 2 D]"""
        x = normed(edge)
        both = F.linear(x, p_in) * F.linear(x, g_in).sigmoid()
        return both * mask[..., None].to(both.dtype)

    def update(triangles: Tensor, edge: Tensor) -> Tensor:
        x = layer_norm(triangles, *norm_out)
        return F.linear(x, p_out) * F.linear(normed(edge), g_out).sigmoid()

    rows = rows_within(largest, edge[:, 0].numel())
    a, b = by_rows(sides, rows, edge, mask).permute(0, 3, 1, 2).chunk(2, dim=1)
    triangles = a @ b.mT if direction == "outgoing" else a.mT @ b
    return by_rows(update, rows, triangles.permute(0, 2, 3, 1), edge)
