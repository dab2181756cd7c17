"""Edge embedding whose first layer is gathered: every feature is that of a node or takes few values.

The layer is linear, so it is a sum over its inputs: nodes are multiplied once each, the relative position takes 2 N - 1
values, a distogram picks one column of the weight. The features of a pair are never joined, and the rest goes by rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.devices import compute_dtype, full_precision, product_dtype
from app.ops.edge_embedding.distogram import bin_of, distances
from app.ops.edge_embedding.reference import EPSILON
from app.ops.recompute import by_rows, rows_within

LARGEST = 2**21
"""Entries of a hidden layer (8 MiB). Edges of at most that size are made in one go."""


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
    dtype = compute_dtype(node)
    inside = product_dtype(dtype, node.device)
    precise = torch.promote_types(dtype, torch.float32)
    size, length, width = node.shape
    with full_precision(node.device):
        node, relative = node.to(precise), relative.to(precise)
        weight, bias = (x.to(precise) for x in first)
        layers = [tuple(x.to(inside) for x in layer) for layer in (second, last)]
        norm_weight, norm_bias = (x.to(precise) for x in norm)
        trans = tuple(positions.detach() for positions in trans)

        has_chain, has_diffuse = chain_idx is not None, diffuse_mask is not None
        parts = weight.split([width] * 3 + [num_bins] * len(trans) + [1] * has_chain + [1, 1] * has_diffuse, dim=1)
        of_i, of_j, by_offset = F.linear(node, parts[0]), F.linear(node, parts[1], bias), F.linear(relative, parts[2])
        by_bin = [F.pad(part.mT, (0, 0, 1, 0)) for part in parts[3 : 3 + len(trans)]]  # row 0 for no bin
        if has_diffuse:
            given = diffuse_mask.to(precise)[..., None]
            of_i, of_j = of_i + given * parts[-2][:, 0], of_j + given * parts[-1][:, 0]
        same_chain = parts[3 + len(trans)][:, 0] if has_chain else None
        position = torch.arange(length, device=node.device)
        chains = [chain_idx] if has_chain else []

        def rows_of(of_i: Tensor, mask: Tensor, row: Tensor, *rest: Tensor) -> Tensor:
            """[B, rows, N, out], from what the rows have of their own."""
            hidden = of_i[:, :, None] + of_j[:, None]
            hidden = hidden + F.embedding(row[:1, :, None] - position + length - 1, by_offset)
            for table, rows, columns in zip(by_bin, rest, trans, strict=False):
                hidden = hidden + F.embedding(bin_of(distances(rows, columns), num_bins), table)
            if same_chain is not None:
                same = rest[-1][:, :, None] == chain_idx[:, None]
                hidden = hidden + same[..., None] * same_chain
            hidden = F.relu(hidden).to(inside)
            hidden = F.relu(F.linear(hidden, *layers[0]))
            out = F.linear(hidden, *layers[1]).to(precise)
            return (F.layer_norm(out, out.shape[-1:], norm_weight, norm_bias, EPSILON) * mask[..., None]).to(dtype)

        rows = rows_within(LARGEST, size * length * len(weight))
        return by_rows(rows_of, rows, of_i, mask, position.expand(size, length), *trans, *chains)
