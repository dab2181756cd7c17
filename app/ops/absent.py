"""Rows of attention in which no key is present: every backend gives exactly 0 there, with gradients that are 0.

Kernels differ on such rows (an average of all values, twice that, NaN), and some send gradients through them.
"""

import torch
from torch import Tensor


def filled(mask: Tensor) -> tuple[Tensor, Tensor]:
    """mask: [..., keys], 1 = present -> keys [..., keys] bool, where a row without any has them all, so that whatever
    a kernel makes of it is finite; and [...] bool, which rows had any: by this the result is to be multiplied.
    """
    keys = mask > 0
    some = keys.any(-1)
    return keys | ~some[..., None], some


def as_bias(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """To be added to logits of that dtype: 0 where a key is present, else very negative. Finite with any bias added."""
    return torch.zeros(keys.shape, dtype=dtype, device=keys.device).masked_fill(~keys, torch.finfo(dtype).min / 2)
