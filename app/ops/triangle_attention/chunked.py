"""Triangle attention a few rows at a time: memory grows like N^2, in the backward pass too."""

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from app.devices import NVIDIA, full_precision
from app.ops.absent import as_bias, filled
from app.ops.recompute import by_rows, rows_within
from app.ops.sdpa import SOUND
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
    on_gpu = q.device.type == NVIDIA
    rows = rows_within(LARGEST_ON_GPU if on_gpu else LARGEST, bias.numel())
    if not on_gpu and wants_gradient(q, k, v, bias):

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
            return reference.triangle_attention(q, k, v, bias, mask)

        return by_rows(attend, rows, q, k, v, mask)

    keys, some = filled(mask)
    dtype = v.dtype
    with full_precision(q.device):
        q, k, bias = q.to(dtype), k.to(dtype), bias.to(dtype).contiguous()  # CUDA's kernels want keys last

        def fused(q: Tensor, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
            size = q.shape[:2]
            masked = bias[:, None] + as_bias(keys, dtype)[:, :, None, None]
            with sdpa_kernel(SOUND):
                out = F.scaled_dot_product_attention(*(x.flatten(0, 1) for x in (q, k, v, masked)))
            return out.unflatten(0, size)

        return by_rows(fused, rows, q, k, v, keys) * some[:, :, None, None, None]
