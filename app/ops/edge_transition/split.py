"""An edge transition taken apart: the share of the nodes, made once a node instead of once a pair, and pairs in chunks.

first([edge_ij, node_i, node_j]) is a sum of three products, two of which belong to nodes; so is the residual in last.
"""

from collections.abc import Iterator
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


Part = tuple[slice, slice]
"""Examples and rows of a chunk: several examples, or rows of one."""


def chunks(size: int, length: int, pairs: int) -> Iterator[Part]:
    """A batch of `size` times `length`^2 pairs in chunks of about so many, which lie together in memory."""
    if not length:
        return
    examples, rows = max(1, pairs // length**2), max(1, min(length, pairs // length))
    for example in range(0, size, examples):
        for row in range(0, length, rows):
            yield slice(example, example + examples), slice(row, row + rows)


def add_up(part: Part, grad: Tensor, of_i: Tensor, of_j: Tensor) -> None:
    """The gradient of a chunk's terms, [examples, rows, N, width], added to those of its nodes, [B, N, width]."""
    of_i[part] = grad.sum(2, dtype=of_i.dtype)
    of_j[part[0]] += grad.sum(1, dtype=of_j.dtype)
