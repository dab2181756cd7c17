"""Attention within sequences by the package flash-attn."""

from flash_attn import flash_attn_varlen_func
from torch import Tensor

from app.ops.esm_attention.reference import Sequences


def esm_attention(q: Tensor, k: Tensor, v: Tensor, sequences: Sequences) -> Tensor:
    """As the reference, in v's dtype with float32 accumulation."""
    starts, longest = sequences.starts, sequences.longest
    return flash_attn_varlen_func(q.to(v.dtype), k.to(v.dtype), v, starts, starts, longest, longest)
