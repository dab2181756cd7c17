"""Attention of the language model's layers, sequence by sequence. Length of a call: that of the longest sequence, in
tokens; widths: a head's width, and how many heads there are."""

import torch
from torch import Tensor

from app.devices import NVIDIA, kind, runs_flash_attention
from app.ops import outline
from app.ops.backend import HALF, Backend, Call
from app.ops.esm_attention.reference import Sequences
from app.ops.packages import FLASH_ATTN
from app.ops.select import Operation, wants_gradient

WIDEST_FLASH_ATTN = 256


def describe(q: Tensor, k: Tensor, v: Tensor, sequences: Sequences) -> Call:
    return Call(kind(q.device), v.dtype, sequences.longest, (q.shape[-1], q.shape[1]), wants_gradient(q, k, v))


def limit_of_flash_attn(call: Call) -> str | None:
    if call.widths[0] > WIDEST_FLASH_ATTN:
        return f"takes heads up to {WIDEST_FLASH_ATTN} wide, not {call.widths[0]}"
    there = call.device == NVIDIA and outline.current() is None  # an estimate may be for a GPU that is not
    if there and not runs_flash_attention(torch.device(call.device), call.dtype):
        return "runs on GPUs from Ampere on"
    return None


esm_attention = Operation(
    "esm_attention",
    backends=[
        Backend("reference", "reference"),
        Backend("torch", "packed"),
        Backend("flash_attn", "flash_attn", devices=(NVIDIA,), dtypes=HALF, limit=limit_of_flash_attn, **FLASH_ATTN),
    ],
    describe=describe,
    order=lambda call: ("torch",),  # the same algorithm as flash_attn; not measured against it
)

__all__ = ["Sequences", "esm_attention"]
