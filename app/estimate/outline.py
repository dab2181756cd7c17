"""What takes the place of loops over slices and of fused kernels while a computation is traced (`app.ops.outline`)."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from app.estimate.attention import attention
from app.estimate.trace import Trace, backward
from app.types import Frames


class Traced:
    """The `app.ops.outline.Outline` of a trace."""

    def __init__(self, trace: Trace):
        self.trace = trace

    def times(self, number: float) -> AbstractContextManager:
        return self.trace.times(number)

    def sliced(
        self, function: Callable[..., Tensor], rows: int, split: Sequence[Tensor], whole: Sequence[Tensor]
    ) -> Tensor:
        return _Slices.apply(self.trace, function, rows, len(split), *split, *whole)

    def fused(self, reference: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        leaves, structure = _flattened((args, kwargs))
        is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            given = iter(tensors)
            args, kwargs = structure(
                [next(given) if one else leaf for one, leaf in zip(is_tensor, leaves, strict=True)]
            )
            out = reference(*args, **kwargs)
            return out if isinstance(out, tuple) else (out,)

        out = _Fused.apply(self.trace, function, *(leaf for leaf in leaves if isinstance(leaf, Tensor)))
        return out if len(out) > 1 else out[0]

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, dropout_p: float, scale: float | None
    ) -> Tensor:
        return attention(q, k, v, bias, dropout_p, scale)


class _Slices(torch.autograd.Function):
    """One slice in place of all, and what all together hold: their results beside these joined."""

    @staticmethod
    def forward(
        ctx, trace: Trace, function: Callable[..., Tensor], rows: int, num_split: int, *given: Tensor
    ) -> Tensor:
        ctx.trace, ctx.function, ctx.rows, ctx.num_split = trace, function, rows, num_split
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)
        split, whole = given[:num_split], given[num_split:]
        length = split[0].shape[1]

        def piece(rows: int) -> Tensor:
            return function(*(x[:, :rows] for x in split), *whole)

        with trace.times(length / rows):
            pieces = [piece(rows)]
        full, left = divmod(length, rows)
        with trace.times(0):  # later ones beside the results of those before them
            if full > 1:
                pieces = [_empty_rows(pieces[0], (full - 1) * rows)]
                pieces.append(piece(rows))
            if left:
                pieces.append(piece(left))
        return torch.cat(pieces, dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        trace, rows, wanted = ctx.trace, ctx.rows, ctx.needs_input_grad[4:]
        pairs = zip(ctx.saved_tensors, wanted, strict=True)
        given = [x.detach().requires_grad_(wants) for x, wants in pairs]
        split, whole, length = given[: ctx.num_split], given[ctx.num_split :], grad.shape[1]
        pieces = [x[:, :rows].detach().requires_grad_(x.requires_grad) for x in split]
        leaves = [x for x in (*pieces, *whole) if x.requires_grad]
        with torch.enable_grad():
            with trace.times(0):  # the forward pass had it
                out = checkpoint(ctx.function, *pieces, *whole, use_reentrant=False, preserve_rng_state=False)
            with trace.times(length / rows):
                backward([out], [grad[:, :rows]], leaves)
        del out
        found = iter(leaves)
        grads = [next(found).grad if wants else None for wants in wanted]
        of_split = [None if x is None else _joined(x, length) for x in grads[: ctx.num_split]]
        return None, None, None, None, *of_split, *grads[ctx.num_split :]


def _joined(first: Tensor, length: int) -> Tensor:
    """All slices' tensors, of which the first is given, beside their concatenation."""
    return torch.cat([first, _empty_rows(first, length - first.shape[1])], dim=1)


def _empty_rows(like: Tensor, rows: int) -> Tensor:
    return like.new_empty(len(like), rows, *like.shape[2:])


class _Fused(torch.autograd.Function):
    """The reference's FLOPs; of memory the arguments, the results and their gradients alone."""

    @staticmethod
    def forward(ctx, trace: Trace, function: Callable[..., tuple[Tensor, ...]], *given: Tensor) -> tuple[Tensor, ...]:
        ctx.trace = trace
        ctx.set_materialize_grads(False)
        leaves = [x.detach().requires_grad_(wants) for x, wants in zip(given, ctx.needs_input_grad[2:], strict=True)]
        with trace.ignoring_memory(), torch.enable_grad():
            ctx.results = function(*leaves)
        ctx.leaves = leaves
        ctx.save_for_backward(*given)
        return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in ctx.results)

    @staticmethod
    def backward(ctx, *grads: Tensor | None) -> tuple:
        wanted = [x for x in ctx.leaves if x.requires_grad]
        reached = [pair for pair in zip(ctx.results, grads, strict=True) if pair[1] is not None]
        results, above = zip(*reached, strict=True)
        with ctx.trace.ignoring_memory():
            backward(results, above, wanted)
        ctx.results = ()
        grads = [x.grad for x in ctx.leaves]
        return None, None, *(None if grad is None else torch.empty_like(grad) for grad in grads)


def _flattened(tree: Any) -> tuple[list, Callable[[list], Any]]:
    """Leaves, frames taken apart, and how to put others in their place."""
    leaves, structure = tree_flatten(tree, is_leaf=lambda x: isinstance(x, Frames))
    flat, counts = [], []
    for leaf in leaves:
        parts = [leaf.rotmats, leaf.trans] if isinstance(leaf, Frames) else [leaf]
        counts.append(len(parts))
        flat += parts

    def together(others: list) -> Any:
        rest = iter(others)
        return tree_unflatten([Frames(next(rest), next(rest)) if n == 2 else next(rest) for n in counts], structure)

    return flat, together
