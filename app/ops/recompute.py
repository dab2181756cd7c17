"""Long computations a few rows at a time, so that what is made for one slice never exists for all.

To torch.compile they are one operator each: slices that it saw would be as many copies of the computation in what it
compiles, and their number would be built in, so that new lengths were compiled again.
"""

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from app.devices import full_precision
from app.ops import outline


class Sliced:
    """`function(*split, *whole)` on slices of rows (dimension 1) of the tensors in `split`, joined in dimension 1.

    Nothing from inside a slice is kept for the backward pass, which makes it again (Chen et al. 2016). One slice is a
    plain call; to a compiler, where it is one whatever the length.
    """

    def __init__(self, function: Callable[..., Tensor]):
        """function: of tensors alone, at the top of its module; it draws no random numbers, and has no autocast."""
        self.function = function
        self._operator, self._backward = _operators(function)

    def __call__(self, rows: int, split: Sequence[Tensor], whole: Sequence[Tensor] = ()) -> Tensor:
        """rows: of a slice."""
        device, length = split[0].device, split[0].shape[1]
        compiling = torch.compiler.is_compiling()
        if compiling and not _known(rows >= length):
            return self._operator(rows, list(split), list(whole))
        with full_precision(device):
            if compiling or rows >= length:
                return self.function(*split, *whole)
            if (outlined := outline.current()) is not None:
                return outlined.sliced(self.function, rows, split, whole)
            return _in_slices(self.function, rows, split, whole)

    def gradients(
        self, grad: Tensor, rows: int, split: Sequence[Tensor], whole: Sequence[Tensor], wanted: Sequence[bool]
    ) -> list[Tensor]:
        """Those with respect to the tensors in `split` and `whole` that are wanted, from that of the result.

        For backward passes. Raises RuntimeError where these are to have gradients as well, which would be taken for 0.
        """
        _refuse_derivative(self.function)
        return self._backward(grad, rows, list(split), list(whole), list(wanted))


def by_rows(function: Callable[..., Tensor]) -> Sliced:
    """Decorator: see `Sliced`."""
    return Sliced(function)


def _known(condition: bool) -> bool:
    """Whether a condition holds whatever lengths the compiler leaves open; asked by `if`, it would be built in."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # a part of the compiler

    return statically_known_true(condition)


def _in_slices(function: Callable[..., Tensor], rows: int, split: Sequence[Tensor], whole: Sequence[Tensor]) -> Tensor:
    # Not by slicing: the gradient of each slice would be a whole tensor of zeros, that of `split` is one concatenation.
    slices = zip(*(tensor.split(rows, dim=1) for tensor in split), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([function(*piece, *whole) for piece in slices], dim=1)
    kept = {"use_reentrant": False, "preserve_rng_state": False}
    return torch.cat([checkpoint(function, *piece, *whole, **kept) for piece in slices], dim=1)


def _operators(function: Callable[..., Tensor]) -> tuple[Callable[..., Tensor], Callable[..., list[Tensor]]]:
    """The same as one operator with a backward pass of its own, which makes and goes through one slice at a time; and
    that backward pass."""
    name = re.sub(r"\W+", "_", f"{function.__module__}.{function.__qualname__}".removeprefix("app.ops."))
    name, backward_name = f"trunkline::{name}", f"{name}_backward"

    @torch.library.custom_op(name, mutates_args=(), schema="(SymInt rows, Tensor[] split, Tensor[] whole) -> Tensor")
    def forward(rows: int, split: list[Tensor], whole: list[Tensor]) -> Tensor:
        with full_precision(split[0].device), torch.no_grad():
            return _in_slices(function, rows, split, whole).contiguous()

    @forward.register_fake
    def _(rows, split, whole):
        with full_precision(split[0].device):
            return torch.empty_like(function(*split, *whole), memory_format=torch.contiguous_format)

    # Not a `custom_op`, inside which nothing has a gradient.
    schema = "(Tensor grad, SymInt rows, Tensor[] split, Tensor[] whole, bool[] wanted) -> Tensor[]"
    torch.library.define(f"{name}_backward", schema)

    @torch.library.impl(f"{name}_backward", "CompositeExplicitAutograd")
    def backward(grad, rows, split, whole, wanted):
        with full_precision(grad.device), torch.enable_grad():
            return _backward(function, grad, rows, split, whole, wanted)

    @torch.library.register_fake(f"{name}_backward")
    def _(grad, rows, split, whole, wanted):
        return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in _wanted((*split, *whole), wanted)]

    def keep(ctx, inputs, output):
        ctx.rows, split, whole = inputs
        ctx.save_for_backward(*split, *whole)
        ctx.num_split = len(split)

    def gradients(ctx, grad):
        given, wanted = list(ctx.saved_tensors), [*ctx.needs_input_grad[1], *ctx.needs_input_grad[2]]
        split, whole = given[: ctx.num_split], given[ctx.num_split :]
        _refuse_derivative(function)
        made = iter(backward_operator(grad, ctx.rows, split, whole, wanted))
        found = [next(made) if wants else None for wants in wanted]
        return None, found[: ctx.num_split], found[ctx.num_split :]

    forward.register_autograd(gradients, setup_context=keep)
    backward_operator = getattr(torch.ops.trunkline, backward_name)
    return forward, backward_operator


def _refuse_derivative(function: Callable[..., Tensor]) -> None:
    """Raises RuntimeError in a backward pass that is to be differentiated: its operator has no derivative."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{function.__name__}: there is no derivative of its backward pass")


def _backward(
    function: Callable[..., Tensor],
    grad: Tensor,
    rows: int,
    split: list[Tensor],
    whole: list[Tensor],
    wanted: list[bool],
) -> list[Tensor]:
    """Gradients of those of `split` and `whole` that are wanted; of the latter, added up over the slices in float32."""
    of_split, of_whole = wanted[: len(split)], wanted[len(split) :]
    whole = [x.detach().requires_grad_(wants) for x, wants in zip(whole, of_whole, strict=True)]
    joined = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in _wanted(split, of_split)]
    totals = [
        torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        for x in _wanted(whole, of_whole)
    ]
    for start in range(0, grad.shape[1], rows):
        here = slice(start, start + rows)
        pieces = [x[:, here].detach().requires_grad_(wants) for x, wants in zip(split, of_split, strict=True)]
        leaves = [*_wanted(pieces, of_split), *_wanted(whole, of_whole)]
        found = torch.autograd.grad(function(*pieces, *whole), leaves, grad[:, here], materialize_grads=True)
        for into, piece in zip(joined, found, strict=False):
            into[:, here] = piece
        shares = found[len(joined) :]
        for total, share in zip(totals, shares, strict=True):
            total += share
    return [*joined, *(total.to(x.dtype) for total, x in zip(totals, _wanted(whole, of_whole), strict=True))]


def _wanted(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    return [x for x, wants in zip(tensors, wanted, strict=True) if wants]


def rows_within(largest: int, row: int) -> int:
    """How many rows of so many entries have at most `largest` together; at least 1, however large or empty a row is."""
    return max(1, largest // max(1, row))
