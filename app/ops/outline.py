"""Operations gone through without being computed: what they do in loops is not repeated, and counts as if it were.

For estimates, whose tensors have shapes and no numbers: a loop over thousands of slices would take as long as the work.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from app.devices import as_if

Part = TypeVar("Part")


class Outline(Protocol):
    """What takes the place of loops and of kernels."""

    def times(self, number: float) -> AbstractContextManager:
        """Work done inside counts so many times."""

    def sliced(
        self, function: Callable[..., Tensor], rows: int, split: Sequence[Tensor], whole: Sequence[Tensor]
    ) -> Tensor:
        """`function(*split, *whole)` in slices of so many rows, fewer than all, as `app.ops.recompute` does it."""

    def fused(self, reference: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """`reference(*args, **kwargs)` by a kernel that writes its results and nothing else."""

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, dropout_p: float, scale: float | None
    ) -> Tensor:
        """torch's `scaled_dot_product_attention`."""


_outline: Outline | None = None


def current() -> Outline | None:
    """What is to take the place of the work, or None, which is where it is done."""
    return _outline


@contextmanager
def using(outline: Outline | None) -> Iterator[None]:
    global _outline
    before, _outline = _outline, outline
    try:
        yield
    finally:
        _outline = before


@contextmanager
def lifted() -> Iterator[None]:
    """Inside, work is done, and tensors are real."""
    with using(None), as_if(None), _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def alike(parts: Iterable[Part], size: Callable[[Part], int], total: int) -> Iterator[Part]:
    """The parts, for a loop that does the same with each and keeps nothing but what was made before it.

    size: of a part, to which its work is in proportion. total: that of all parts together.
    """
    if _outline is None:
        yield from parts
        return
    # The second pass is done beside what the first one left in the loop's variables, as all later ones are.
    for place, part in enumerate(itertools.islice(parts, 2)):
        with _outline.times(total / size(part) if place == 0 else 0):
            yield part
