"""Softmax attention within each of several sequences that lie one after the other, with all logits written out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.devices import full_precision


@dataclass(frozen=True)
class Sequences:
    """Where sequences lie that follow each other without padding, known on the host and on the device.

    starts: [S + 1] int32, the first token of each, and the number of all. lengths: S numbers, none of them 0.
    """

    starts: Tensor
    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)


def esm_attention(q: Tensor, k: Tensor, v: Tensor, sequences: Sequences) -> Tensor:
    """q, k, v: [tokens, H, D], of all sequences. A token attends to those of its own sequence (Vaswani et al. 2017).

    Returns [tokens, H, D] in v's dtype; logits and their softmax are float32 under any autocast.
    """
    with full_precision(q.device):
        precise = torch.promote_types(v.dtype, torch.float32)
        token = torch.arange(len(q), dtype=torch.int32, device=q.device)
        sequence = torch.searchsorted(sequences.starts, token, right=True)
        logits = torch.einsum("ihd,jhd->hij", q.to(precise), k.to(precise)) * q.shape[-1] ** -0.5
        logits = logits.masked_fill(sequence[:, None] != sequence, -torch.inf)
        return torch.einsum("hij,jhd->ihd", torch.softmax(logits, dim=-1), v.to(precise)).to(v.dtype)
