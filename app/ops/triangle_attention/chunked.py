"""Triangle attention a few rows at a time: memory grows like N^2, in the backward pass too."""

from torch import Tensor

from app.devices import NVIDIA, kind
from app.ops.absent import as_bias, filled
from app.ops.recompute import by_rows, rows_within
from app.ops.sdpa import fused_attention
from app.ops.select import wants_gradient
from app.ops.triangle_attention import reference

LARGEST = 2**25
"""Logits that may exist at once (128 MiB). So many are made and kept in one go: short proteins pay nothing."""

LARGEST_ON_GPU = 2**27
"""The same on a GPU, whose memory is larger: 322 residues of 4 heads in one go, without recomputation. Not measured;
with the CPU's, an H100 takes 20 ms at 512 residues, forward and backward in bfloat16, and the reference 26."""


def triangle_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """As the reference, on slices of rows of at most so many logits, one row at least.

    torch's fused attention takes a slice where it is faster: on a GPU, and without gradients. With them, on a CPU, it
    would write all logits out as well, and be slower.
    """
    on_gpu = kind(q.device) == NVIDIA
    largest, length = LARGEST_ON_GPU if on_gpu else LARGEST, q.shape[1]
    # The `if` makes short proteins a case of their own to a compiler, too: they keep what they made.
    rows = length if length * bias.numel() <= largest else rows_within(largest, bias.numel())
    if not on_gpu and wants_gradient(q, k, v, bias):
        return _attend(rows, [q, k, v, mask], [bias])
    keys, some = filled(mask)
    q, k, bias = q.to(v.dtype), k.to(v.dtype), bias.to(v.dtype).contiguous()  # CUDA's kernels want keys last
    return _fused(rows, [q, k, v, keys], [bias]) * some[:, :, None, None, None]


@by_rows
def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
    return reference.triangle_attention(q, k, v, bias, mask)


@by_rows
def _fused(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    masked = bias[:, None] + as_bias(keys, v.dtype)[:, :, None, None]
    out = fused_attention(*(x.flatten(0, 1) for x in (q, k, v, masked)))
    return out.unflatten(0, q.shape[:2])
