"""The layers of an edge transition that see nodes, applied to every node once instead of to every pair.

first([edge_ij, node_i, node_j]) is a sum of three products, two of which belong to nodes; so is the residual in last.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class NodeTerms(NamedTuple):
    """What a pair ij adds up from its nodes, biases included: each [B, N, hidden] or [B, N, out]."""

    first_i: Tensor
    first_j: Tensor
    last_i: Tensor
    last_j: Tensor


def node_terms(node: Tensor, first: tuple[Tensor, Tensor], last: tuple[Tensor, Tensor]) -> NodeTerms:
    """node: [B, N, c]; layers as the operation takes them, of which only the columns of node i and node j are read."""
    width = node.shape[-1]
    terms = []
    for weight, bias in (first, last):
        start = weight.shape[1] - 2 * width
        terms.append(F.linear(node, weight[:, start : start + width]))
        terms.append(F.linear(node, weight[:, start + width :], bias))
    return NodeTerms(*terms)
