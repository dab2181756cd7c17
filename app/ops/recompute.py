"""Long computations a few rows at a time, so that what is made for one slice never exists for all."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def by_rows(function: Callable[..., Tensor], rows: int, *split: Tensor) -> Tensor:
    """`function` on slices of `rows` rows (dimension 1) of the tensors in `split`; joins the results in that dimension.

    Nothing from inside a slice is kept for the backward pass, which makes it again (Chen et al. 2016). What `function`
    reads besides its arguments gets its gradients too. One slice is a plain call. `function` draws no random numbers.
    """
    if rows >= split[0].shape[1]:
        return function(*split)
    # Not by slicing: the gradient of each slice would be a whole tensor of zeros, that of `split` is one concatenation.
    slices = zip(*(tensor.split(rows, dim=1) for tensor in split), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([function(*piece) for piece in slices], dim=1)
    kept = {"use_reentrant": False, "preserve_rng_state": False}
    return torch.cat([checkpoint(function, *piece, **kept) for piece in slices], dim=1)


def rows_within(largest: int, row: int) -> int:
    """How many rows of so many entries have at most `largest` together; at least 1, however large or empty a row is."""
    return max(1, largest // max(1, row))
