"""Triangle attention around the starting node (AlphaFold 3, algorithm 14), with all logits written out."""

import torch
from torch import Tensor

from app.devices import full_precision

NEGATIVE = -1e9
"""Added to the logits of absent keys: finite, so that a row without any key gives an average and no NaN."""


def triangle_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """In each row i, edge ij attends to the edges ik; edge jk gives the bias, the same in every row.

    q, k, v: [B, N rows, H, N columns, D]. bias: [B, H, N, N], for j and k. mask: [B, N, N], 1 where edge ik is present.
    Returns [B, N, H, N, D] in v's dtype. The logits and their softmax are float32 under any autocast. A row without any
    key gives finite values without meaning.

    Around the ending node it is the same on transposed edges and mask (algorithm 15).
    """
    with full_precision(q.device):
        logits = torch.einsum("bihjd,bihkd->bihjk", q.float(), k.float()) * q.shape[-1] ** -0.5
        logits = logits + bias.float()[:, None] + NEGATIVE * (1 - mask.float())[:, :, None, None]
        weights = torch.softmax(logits, dim=-1)
        return torch.einsum("bihjk,bihkd->bihjd", weights.to(v.dtype), v)
