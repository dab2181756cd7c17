"""Edge embedding: an MLP over what is known of two residues (FrameDiff, Yim et al. 2023; Campbell et al. 2024)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.devices import compute_dtype, full_precision
from app.ops.edge_embedding.distogram import distogram

EPSILON = 1e-5
"""Of the LayerNorm."""


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
    """Edges from nodes, relative positions and distances: three layers with ReLU between, a LayerNorm, and the mask.

    node: [B, N, c], projected node representation. relative: [2 N - 1, c], the projected relative position, row
    i - j + N - 1 for rows i and j. trans: positions [B, N, 3], angstrom, each of which gives a distogram of `num_bins`;
    they have no gradient. chain_idx: [B, N], to see whether two residues share a chain. diffuse_mask: [B, N], to see
    which are given. Layers: (weight [out, in], bias [out]), the first over all features in the order of `features`.
    norm: weight and bias of the LayerNorm, [out]. mask: [B, N, N], 1 = present.
    Returns [B, N, N, out] in autocast's dtype where autocast is on, else in the node's; the LayerNorm is float32.
    """
    dtype = compute_dtype(node)
    hidden = features(node, relative, trans, num_bins, chain_idx, diffuse_mask).to(dtype)
    for weight, bias in (first, second):
        hidden = F.relu(F.linear(hidden, weight, bias))
    out = F.linear(hidden, *last)
    with full_precision(node.device):
        precise = torch.promote_types(dtype, torch.float32)
        weight, bias = (x.to(precise) for x in norm)
        normed = F.layer_norm(out.to(precise), out.shape[-1:], weight, bias, EPSILON)
        return (normed * mask[..., None]).to(dtype)


def features(
    node: Tensor,
    relative: Tensor,
    trans: tuple[Tensor, ...],
    num_bins: int,
    chain_idx: Tensor | None,
    diffuse_mask: Tensor | None,
) -> Tensor:
    """All features of a pair: node i, node j, relative position, a distogram for each of `trans`, same chain, i and j
    diffused. [B, N, N, 3 c + bins + 1 + 2], less what is None."""
    size, length, _ = node.shape

    def both(x: Tensor) -> list[Tensor]:
        """[B, N, c] as seen from i and from j, each [B, N, N, c]."""
        shape = (size, length, length, x.shape[-1])
        return [x[:, :, None].expand(shape), x[:, None].expand(shape)]

    position = torch.arange(length, device=node.device)
    offset = position[:, None] - position + length - 1
    found = [*both(node), relative[offset].expand(size, -1, -1, -1).to(node.dtype)]
    found += [distogram(positions, num_bins).to(node.dtype) for positions in trans]
    if chain_idx is not None:
        same = chain_idx[:, :, None] == chain_idx[:, None]
        found.append(same[..., None].to(node.dtype))
    if diffuse_mask is not None:
        found += both(diffuse_mask[..., None].to(node.dtype))
    return torch.cat(found, dim=-1)
