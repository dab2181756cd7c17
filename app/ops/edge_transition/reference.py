"""Edge transition: an MLP with a residual over each edge joined with its two nodes (FrameDiff, Yim et al. 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def edge_transition(
    edge: Tensor, node: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], last: tuple[Tensor, Tensor]
) -> Tensor:
    """edge: [B, N, N, c_z]; node: [B, N, c], narrowed node representation; each layer (weight [out, in], bias [out]).

    With x = [edge_ij, node_i, node_j], width c_z + 2 c: last(relu(second(relu(first(x)))) + x), [B, N, N, out].
    """
    size, length, width = node.shape
    node_i = node[:, :, None].expand(size, length, length, width)
    node_j = node[:, None].expand(size, length, length, width)
    joined = torch.cat([edge, node_i, node_j], dim=-1)
    hidden = F.relu(F.linear(joined, *first))
    hidden = F.relu(F.linear(hidden, *second))
    return F.linear(hidden + joined, *last)
