"""Attention within sequences by torch's own kernels, without work on padding."""

import torch
from torch import Tensor

from app.devices import full_precision, runs_flash_attention
from app.ops.esm_attention.reference import Sequences
from app.ops.sdpa import fused_attention

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn = None


def esm_attention(q: Tensor, k: Tensor, v: Tensor, sequences: Sequences) -> Tensor:
    """As the reference, in v's dtype with float32 accumulation: sequences of one length together, of several lengths in
    one kernel where the device has it (half precision on GPUs from Ampere on), else one after the other."""
    with full_precision(q.device):
        q, k = q.to(v.dtype), k.to(v.dtype)
        if len(set(sequences.lengths)) == 1:
            return _equal(q, k, v, len(sequences.lengths))
        if varlen_attn is not None and runs_flash_attention(q.device, v.dtype):
            longest = sequences.longest
            q, k, v = (x.contiguous() for x in (q, k, v))
            return varlen_attn(q, k, v, sequences.starts, sequences.starts, longest, longest)
        each = zip(*(x.split(sequences.lengths) for x in (q, k, v)), strict=True)
        return torch.cat([_equal(*one, 1) for one in each] or [v])  # v: without any sequence, of no token


def _equal(q: Tensor, k: Tensor, v: Tensor, number: int) -> Tensor:
    q, k, v = (x.unflatten(0, (number, -1)).transpose(1, 2) for x in (q, k, v))
    return fused_attention(q, k, v).transpose(1, 2).flatten(0, 1)
