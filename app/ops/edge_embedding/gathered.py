"""Edge embedding whose first layer is gathered: every feature is that of a node or takes few values.

The layer is linear, so it is a sum over its inputs: nodes are multiplied once each, the relative position takes 2 N - 1
values, a distogram picks one column of the weight. The features of a pair are never joined, and the rest goes by rows.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from app.devices import NVIDIA, compute_dtype, full_precision, kind, product_dtype
from app.ops.edge_embedding.distogram import bin_of, distances
from app.ops.edge_embedding.reference import EPSILON
from app.ops.recompute import by_rows, rows_within

LARGEST = 2**21
"""Entries of a hidden layer (8 MiB). Edges of at most that size are made in one go."""

LARGEST_ON_GPU = 2**25
"""The same where slices have to keep a GPU busy: 512 residues in one go. With slices as on a CPU, launching them took
an H100's host four times as long as the reference takes."""


def edge_embedding(
    node: Tensor,
    relative: Tensor,
    trans: tuple[Tensor, ...],
    num_bins: int,
    chain_idx: Tensor | None,
    diffuse_mask: Tensor | None,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    mask: Tensor,
) -> Tensor:
    """As the reference. The first layer and the LayerNorm are float32 under any autocast, or all is float64."""
    parts = shares(node, relative, trans, num_bins, chain_idx, diffuse_mask, first)
    largest = LARGEST_ON_GPU if kind(node.device) == NVIDIA else LARGEST
    rows = rows_within(largest, parts.of_j.numel())
    return edges(rows, *parts.arguments(mask.to(compute_dtype(node)), second, last, norm))


class Shares(NamedTuple):
    """What the first layer's output is a sum of, in float32 or float64, and where a pair finds its terms."""

    of_i: Tensor  # [B, N, hidden]
    of_j: Tensor  # [B, N, hidden], bias included
    by_offset: Tensor  # of the relative position, [2 N - 1, hidden], row i - j + N - 1
    by_bin: Tensor  # of distances, [T, bins + 1, hidden]; row 0 for no bin
    place: Tensor  # number and chain of residues, [B, N, 2]
    positions: Tensor  # [B, N, T, 3]
    same_chain: tuple[Tensor, ...]  # [hidden] where the chain is seen, else nothing

    def arguments(self, mask: Tensor, *layers: tuple[Tensor, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """For `edges`: what the rows have of their own, and what they share."""
        mine = [self.of_i, mask, self.place, self.positions]
        shared = [self.of_j, self.by_offset, self.by_bin, self.place, self.positions]
        return mine, [*shared, *(x for layer in layers for x in layer), *self.same_chain]


def shares(
    node: Tensor,
    relative: Tensor,
    trans: tuple[Tensor, ...],
    num_bins: int,
    chain_idx: Tensor | None,
    diffuse_mask: Tensor | None,
    first: tuple[Tensor, Tensor],
) -> Shares:
    """Arguments as of the operation."""
    precise = torch.promote_types(compute_dtype(node), torch.float32)
    size, length, width = node.shape
    with full_precision(node.device):
        node, relative = node.to(precise), relative.to(precise)
        weight, bias = (x.to(precise) for x in first)
        has_chain, has_diffuse = chain_idx is not None, diffuse_mask is not None
        parts = weight.split([width] * 3 + [num_bins] * len(trans) + [1] * has_chain + [1, 1] * has_diffuse, dim=1)
        of_i, of_j, by_offset = F.linear(node, parts[0]), F.linear(node, parts[1], bias), F.linear(relative, parts[2])
        by_bin = torch.stack([F.pad(part.mT, (0, 0, 1, 0)) for part in parts[3 : 3 + len(trans)]])
        if has_diffuse:
            given = diffuse_mask.to(precise)[..., None]
            of_i, of_j = of_i + given * parts[-2][:, 0], of_j + given * parts[-1][:, 0]
        position = torch.arange(length, device=node.device).expand(size, length)
        place = torch.stack([position, chain_idx if has_chain else position], dim=-1)
        same_chain = (parts[3 + len(trans)][:, 0],) if has_chain else ()
    return Shares(of_i, of_j, by_offset, by_bin, place, torch.stack(trans, dim=2).detach(), same_chain)


@by_rows
def edges(
    of_i: Tensor,
    mask: Tensor,
    row: Tensor,
    positions_i: Tensor,
    of_j: Tensor,
    by_offset: Tensor,
    by_bin: Tensor,
    column: Tensor,
    positions_j: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    last_weight: Tensor,
    last_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    *same_chain: Tensor,
) -> Tensor:
    """[B, rows, N, out] in the mask's dtype.

    of_i, of_j: shares of the first layer, [B, rows or N, hidden]. row, column: number and chain of residues,
    [B, rows or N, 2]. positions: [B, rows or N, T, 3]. Tables of the first layer: by_offset [2 N - 1, hidden], by_bin
    [T, bins + 1, hidden], and same_chain [hidden], where the chain is seen.
    """
    inside = product_dtype(mask.dtype, mask.device)
    second_weight, second_bias, last_weight, last_bias = (
        x.to(inside) for x in (second_weight, second_bias, last_weight, last_bias)
    )
    hidden = of_i[:, :, None] + of_j[:, None]
    hidden = hidden + F.embedding(row[:1, :, None, 0] - column[:1, None, :, 0] + column.shape[1] - 1, by_offset)
    for table, rows, columns in zip(by_bin, positions_i.unbind(2), positions_j.unbind(2), strict=True):
        hidden = hidden + F.embedding(bin_of(distances(rows, columns), len(table) - 1), table)
    for share in same_chain:
        same = row[:, :, None, 1] == column[:, None, :, 1]
        hidden = hidden + same[..., None] * share
    hidden = F.relu(hidden).to(inside)
    hidden = F.relu(F.linear(hidden, second_weight, second_bias))
    out = F.linear(hidden, last_weight, last_bias).to(of_i.dtype)
    norm_weight, norm_bias = norm_weight.to(out.dtype), norm_bias.to(out.dtype)
    return (F.layer_norm(out, out.shape[-1:], norm_weight, norm_bias, EPSILON) * mask[..., None]).to(mask.dtype)
