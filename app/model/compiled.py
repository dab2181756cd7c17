"""torch.compile with a way back: where the compiler is missing or fails, the same numbers come without it."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from app.config.keys import one_line
from app.devices import has_compiler, is_out_of_memory

log = logging.getLogger(__name__)

MOST_COMPILATIONS = 16
"""Of one function: with gradients and without, of single examples, of lengths at which an operation begins to work in
slices, ... Calls for which it would be compiled once more run without the compiler."""


class Compiled:
    """A model's call, compiled when it is made for the second time, and as it was from the compiler's first failure on.

    The first time, operations choose their kernels, import and try them, none of which is for a compiler to see.

    What fails is called once more without the compiler: where that fails as well, the error is its own, and where it
    does not, the compiler was to blame, which is said once. The backward pass is compiled in the same call as the
    forward pass, so that nothing of a training step is done when the compiler fails in either. Of kernels that it made,
    those of the backward pass run later, when there is no way back: their errors are not caught. A kernel that fails
    when it runs may have drawn random numbers: dropout in the call that is made again is then another.

    The first argument is a batch, whose tensors are [B, N, ...]. lengths_vary: kernels serve all B and N from the
    start. Otherwise the first shape gets kernels of its own, and B and N are left open from where they first change.
    Operations that work in slices are single operators to the compiler (see `app.ops.recompute`).
    """

    def __init__(
        self,
        function: Callable,
        device: torch.device,
        *,
        lengths_vary: bool,
        tell: Callable[[str], None] = log.info,
        **how: Any,
    ):
        """tell: is told when compiling begins. how: arguments of torch.compile."""
        self.plain, self.lengths_vary, self.tell = function, lengths_vary, tell
        self.compiled: Callable | None = None
        self.served = False  # whether calls went through the compiler, and it failed in none
        self._calls, self._at_limit = 0, False
        if not has_compiler(device):
            _warn(f"its support of {device.type} is a prototype")
            return
        if by := _switched_off():
            _warn(f"{by} has switched it off")
            return
        try:
            self.compiled = torch.compile(function, **how)
        except Exception as error:  # an interpreter or a system that it does not support
            _warn(_reason(error))

    def __call__(self, batch: Any, *args, **kwargs) -> Any:
        self._calls += 1
        if self.compiled is None or self._calls == 1:
            return self.plain(batch, *args, **kwargs)
        if self._calls == 2:
            self.tell("compile=true: compiling the network; the first calls of each kind take minutes")
        try:
            if self.lengths_vary:
                _leave_open(batch)
            with torch.compiler.set_stance("eager_on_recompile") if self._at_limit else _at_once():
                out = self.compiled(batch, *args, **kwargs)
            self.served = True
            return out
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Not the error itself is kept: frames of it and of what it came from hold all that was computed.
            reason, at_limit = _reason(error), isinstance(error, torch._dynamo.exc.FailOnRecompileLimitHit)
        out = self.plain(batch, *args, **kwargs)
        if at_limit:
            self._at_limit = True
            log.warning(
                f"compile=true: compiled for {MOST_COMPILATIONS} kinds of batches: from here on, others run without the"
                " compiler, results are the same"
            )
        else:
            self.compiled, self.served = None, False
            _warn(reason)
        return out


def compile_in_place(module: nn.Module, device: torch.device, **how: Any) -> None:
    """Compile a module's calls from now on; names and shapes of its parameters stay, as with `nn.Module.compile`.

    Made for batches of ever new lengths. device: where the module will be. how: arguments of torch.compile.
    """
    module._compiled_call_impl = Compiled(module._call_impl, device, lengths_vary=True, **how)


def has_served(module: nn.Module) -> bool:
    """Whether calls of a module went through the compiler, by `compile_in_place`, and it failed in none."""
    return isinstance(module._compiled_call_impl, Compiled) and module._compiled_call_impl.served


@contextmanager
def _at_once() -> Iterator[None]:
    """Both passes are compiled in the forward pass, where torch can; a limit that is reached is an error."""
    limit = max(torch._dynamo.config.recompile_limit, MOST_COMPILATIONS)
    backward = "force_non_lazy_backward_lowering"
    with (
        torch._dynamo.config.patch(recompile_limit=limit, fail_on_recompile_limit_hit=True),
        torch._functorch.config.patch({backward: True} if hasattr(torch._functorch.config, backward) else {}),
    ):
        yield


def _leave_open(batch: Any) -> None:
    """Tell the compiler that batch size and length are not to be built in; those of 1 are, whatever one says."""
    for value in vars(batch).values():
        for dim in range(min(value.dim(), 2)) if isinstance(value, Tensor) else ():
            if value.shape[dim] > 1:
                torch._dynamo.maybe_mark_dynamic(value, dim)


def _switched_off() -> str | None:
    """The variable by which the user has switched the compiler off: torch.compile then quietly does nothing."""
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        return "TORCHDYNAMO_DISABLE=1"
    return "TORCH_COMPILE_DISABLE=1" if torch._dynamo.config.disable else None


def _reason(error: Exception) -> str:
    text, _, _ = one_line(error).partition(" Set TORCHDYNAMO_VERBOSE")  # advice for those who debug the compiler
    return f"{type(error).__name__}: {text[:300]}"


def _warn(reason: str) -> None:
    log.warning(f"compile=true: torch.compile does not work here ({reason}): going on without it, results are the same")
