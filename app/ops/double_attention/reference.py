"""Double attention over all pairs: gather into a few global descriptors, hand those out (A2-Nets, Chen et al. 2018)."""

import torch
from torch import Tensor


def double_attention(features: Tensor, gather: Tensor, distribute: Tensor, edge_mask: Tensor) -> Tensor:
    """Equations 3 to 5 of the paper, where positions are the pairs that are present. Memory goes with N^2.

    features: [B, N, N, C], what is gathered. gather: [B, N, N, M], logits of M attention maps, each a softmax over all
    pairs of an example. distribute: [B, N, N, M], logits with which a pair mixes the M descriptors, a softmax over
    them. edge_mask: [B, N, N], 1 = present. Returns [B, N, N, C], 0 at absent pairs.
    """
    present = edge_mask[..., None]
    logits = gather.float()
    lowest = torch.finfo(logits.dtype).min  # finite: in an example without any pair the softmax is no NaN
    maps = torch.softmax(logits.masked_fill(present == 0, lowest).flatten(1, 2), dim=1)
    descriptors = torch.einsum("bpm,bpc->bmc", maps.to(features.dtype), features.flatten(1, 2))
    mixture = torch.softmax(distribute.float(), dim=-1) * present
    return torch.einsum("bijm,bmc->bijc", mixture.to(features.dtype), descriptors)
