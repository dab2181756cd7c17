"""A computation gone through on tensors without numbers: the FLOPs that it takes, the memory that it has in use."""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

FLOPS = flop_registry | {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}
"""torch's formulas, and what it lacks: products of matrices alone count, an addition and a multiplication each."""


class Trace(TorchDispatchMode):
    """`with torch.device("meta"), Trace() as trace:` counts the FLOPs and the bytes of all tensors made that live.

    Autograd runs as ever, so that what it keeps for the backward pass lives as long as it really would. A tensor counts
    with all of its storage, once, however many views there are. What an operator needs within itself is not seen.
    """

    def __init__(self):
        super().__init__()
        self.flops = 0.0
        self.bytes = self.peak = 0
        self._sizes: dict[int, int] = {}
        self._made: dict[tuple, Any] = {}
        self._factor, self._ignores = 1.0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0 if args[0].dtype == torch.bool else 1  # whether to draw again, the number of a step
        out = self._result(func, args, kwargs)
        if formula := FLOPS.get(func._overloadpacket):
            self.flops += self._factor * formula(*args, **kwargs, out_val=out)
        if not self._ignores:
            self.hold(out)
        return out

    def _result(self, func: OpOverload, args: tuple, kwargs: dict) -> Any:
        """What the operator returns; as it was before on tensors of the same shapes, since blocks are much alike, and
        torch's own way to many a shape is long."""
        if (written := _fills(func)) is not None:
            return kwargs[written] if written in kwargs else args[0]
        if not _makes_new_tensors(func):
            return func(*args, **kwargs)
        key = func, _described(args), _described(tuple(kwargs.items()))
        if (made := self._made.get(key)) is not None:
            return tree_map_only(_Made, _Made.again, made)
        out = func(*args, **kwargs)
        made = _storages(out)
        if made and made.isdisjoint(_storages((args, kwargs))):  # schemas do not always tell
            self._made[key] = tree_map_only(Tensor, _Made.of, out)
        return out

    def hold(self, made: Any) -> None:
        """Count what tensors hold for as long as they live, if it does not count yet."""
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if (key := storage._cdata) not in self._sizes:
                    self._sizes[key] = storage.nbytes()
                    self.bytes += self._sizes[key]
                    weakref.finalize(storage, self._release, key)
        self.peak = max(self.peak, self.bytes)

    def _release(self, key: int) -> None:
        self.bytes -= self._sizes.pop(key)

    def restart(self) -> None:
        """Forget the peak and the FLOPs so far, not what lives."""
        self.flops, self.peak = 0.0, self.bytes

    @contextmanager
    def times(self, number: float) -> Iterator[None]:
        """FLOPs inside count so many times."""
        before, self._factor = self._factor, self._factor * number
        try:
            yield
        finally:
            self._factor = before

    @contextmanager
    def ignoring_memory(self) -> Iterator[None]:
        """Tensors made inside do not count."""
        before, self._ignores = self._ignores, True
        try:
            yield
        finally:
            self._ignores = before


def backward(outputs: Sequence[Tensor], gradients: Sequence[Tensor], inputs: Sequence[Tensor] = ()) -> None:
    """As `torch.autograd.backward`, which would hide modes such as `Autocast` from what checkpointing does again."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(
        tuple(outputs), tuple(gradients), False, False, tuple(inputs), allow_unreachable=True, accumulate_grad=True
    )


@dataclass(frozen=True)
class _Made:
    """A tensor, but for its numbers."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> "_Made":
        return cls(*_described(tensor))

    def again(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


def _described(value: Any) -> Any:
    """An argument by all that the shape of the result can depend on; 1, 1.0 and True apart."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, list | tuple):
        return tuple(_described(one) for one in value)
    return type(value), value


@cache
def _makes_new_tensors(func: OpOverload) -> bool:
    """Whether an operator is torch's own, writes into no argument and returns none, nor a part of one."""
    schema = func._schema
    return func.namespace == "aten" and not any(one.alias_info for one in (*schema.arguments, *schema.returns))


@cache
def _fills(func: OpOverload) -> str | None:
    """The argument, its first or one by name, that one of torch's own operators fills with numbers and returns."""
    schema = func._schema
    written = [one for one in schema.arguments if one.alias_info and one.alias_info.is_write]
    if func.namespace != "aten" or func._opname in _RESHAPE or len(written) != 1 or len(schema.returns) != 1:
        return None
    (one,) = written
    returned = schema.returns[0].alias_info
    returns_it = returned is not None and returned.is_write
    return one.name if returns_it and (one.kwarg_only or one is schema.arguments[0]) else None


_RESHAPE = ("resize_", "resize_as_", "set_", "as_strided_", "unsqueeze_", "squeeze_", "t_", "transpose_")
"""Operators that write no number, but a tensor's shape."""


def _storages(tree: Any) -> set[int]:
    return {leaf.untyped_storage()._cdata for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}
