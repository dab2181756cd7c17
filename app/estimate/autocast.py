"""Autocast to bfloat16 on tensors without numbers, for which torch has none.

Whether it is on is for torch's own switch of the CPU to say, which `app.devices` reads and switches off.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from app.devices import CPU, NVIDIA

_NARROW = {F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.einsum}
"""Of the functions that models use, those that autocast runs in half precision."""

_WIDE = {CPU: set(), NVIDIA: {F.layer_norm, F.softmax, torch.softmax, Tensor.softmax, torch.cumsum, Tensor.cumsum}}
"""Those that it runs in float32, by device."""


class Autocast(TorchFunctionMode):
    """Casts what functions are given; within `forward`, each weight once, as torch does it."""

    def __init__(self, device: str):
        """device: the type of that for which it casts."""
        super().__init__()
        self._wide = _WIDE.get(device, set())
        self._cast: dict[int, Tensor] | None = None

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_autocast_enabled(CPU):
            if func in _NARROW:
                args, kwargs = tree_map_only(Tensor, self._narrow, (args, kwargs))
            elif func in self._wide:
                args, kwargs = tree_map_only(Tensor, _widened, (args, kwargs))
        return func(*args, **kwargs)

    @contextmanager
    def forward(self, enabled: bool) -> Iterator[None]:
        """A forward pass, under autocast if so told."""
        self._cast = {}
        try:
            with torch.autocast(CPU, torch.bfloat16, enabled):
                yield
        finally:
            self._cast = None

    def _narrow(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        if self._cast is None or not (x.is_leaf and x.requires_grad):
            return x.to(torch.bfloat16)
        if id(x) not in self._cast:
            self._cast[id(x)] = x.to(torch.bfloat16)
        return self._cast[id(x)]


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x
