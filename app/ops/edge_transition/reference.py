"""Edge transition: an MLP with a residual over each edge joined with its two nodes (FrameDiff, Yim et al. 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.devices import compute_dtype, full_precision

EPSILON = 1e-5
"""Of the LayerNorm."""


def edge_transition(
    edge: Tensor,
    node: Tensor,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    mask: Tensor,
) -> Tensor:
    """The edges after an MLP over each edge and its two nodes, a LayerNorm, and the mask.

    edge: [B, N, N, c_z]; node: [B, N, c], narrowed node representation; each layer (weight [out, in], bias [out]);
    norm: weight and bias of the LayerNorm, [out]; mask: [B, N, N], 1 = present.
    With x = [edge_ij, node_i, node_j], width c_z + 2 c: LayerNorm(last(relu(second(relu(first(x)))) + x)) mask.
    Returns [B, N, N, out] in autocast's dtype where autocast is on, else in the edge's; the LayerNorm is float32.
    """
    dtype = compute_dtype(edge)
    size, length, width = node.shape
    node_i = node[:, :, None].expand(size, length, length, width)
    node_j = node[:, None].expand(size, length, length, width)
    joined = torch.cat([edge.to(dtype), node_i.to(dtype), node_j.to(dtype)], dim=-1)
    hidden = F.relu(F.linear(joined, *first))
    hidden = F.relu(F.linear(hidden, *second))
    out = F.linear(hidden + joined, *last)
    with full_precision(edge.device):
        precise = torch.promote_types(dtype, torch.float32)
        weight, bias = (x.to(precise) for x in norm)
        normed = F.layer_norm(out.to(precise), out.shape[-1:], weight, bias, EPSILON)
        return (normed * mask[..., None]).to(dtype)
