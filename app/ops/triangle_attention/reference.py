"""Triangle attention around the starting node (AlphaFold 3, algorithm 14), with all logits written out."""

import torch
from torch import Tensor

from app.devices import full_precision

NEGATIVE = -1e9
"""Added to the logits of absent keys: finite, so that a row without any key is no NaN before it is set to 0."""


def triangle_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """In each row i, edge ij attends to the edges ik; edge jk gives the bias, the same in every row.

    q, k, v: [B, N rows, H, N columns, D]. bias: [B, H, N, N], for j and k. mask: [B, N, N], 1 where edge ik is present.
    Returns [B, N, H, N, D] in v's dtype; 0, and with it all gradients, in a row without any key. The logits and their
    softmax are float32 under any autocast.

    Around the ending node it is the same on transposed edges and mask (algorithm 15).
    """
    with full_precision(q.device):
        precise = torch.promote_types(q.dtype, torch.float32)
        q, k, bias, mask = (x.to(precise) for x in (q, k, bias, mask))
        logits = torch.einsum("bihjd,bihkd->bihjk", q, k) * q.shape[-1] ** -0.5
        logits = logits + bias[:, None] + NEGATIVE * (1 - mask)[:, :, None, None]
        weights = torch.softmax(logits, dim=-1) * mask.any(-1)[:, :, None, None, None]
        return torch.einsum("bihjk,bihkd->bihjd", weights.to(v.dtype), v)
