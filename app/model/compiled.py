"""torch.compile with a way back: where the compiler is missing or fails, the same numbers come without it."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from app.config.keys import one_line
from app.devices import has_compiler

log = logging.getLogger(__name__)

MOST_COMPILATIONS = 16
"""Of one function, before torch.compile lets it run as it is: with gradients and without, of single examples, ..."""


class Compiled:
    """A model's call, compiled when it is made for the second time, and as it was from the compiler's first failure on.

    The first time, operations choose their kernels, import and try them, none of which is for a compiler to see.

    What fails is called once more without the compiler: where that fails as well, the error is its own, and where it
    does not, the compiler was to blame, which is said once.

    The first argument is a batch, whose tensors are [B, N, ...]. lengths_vary: kernels serve all B and N from the
    start. Otherwise the first shape gets kernels of its own, and B and N are left open from where they first change.
    Operations that work in slices build the length in all the same, so that new lengths compile again, as often as
    MOST_COMPILATIONS allows. A compiler that fails in the backward pass alone is not noticed here.
    """

    def __init__(self, function: Callable, device: torch.device, *, lengths_vary: bool, **how: Any):
        """how: arguments of torch.compile."""
        self.plain, self.lengths_vary = function, lengths_vary
        self.compiled: Callable | None = None
        self._called = False
        if not has_compiler(device):
            _say(f"its support of {device.type} is a prototype")
            return
        try:
            self.compiled = torch.compile(function, **how)
        except Exception as error:  # an interpreter or a system that it does not support
            _say(_reason(error))
        else:
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_COMPILATIONS)

    def __call__(self, batch: Any, *args, **kwargs) -> Any:
        if self.compiled is None or not self._called:
            self._called = True
            return self.plain(batch, *args, **kwargs)
        try:
            if self.lengths_vary:
                _leave_open(batch)
            return self.compiled(batch, *args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as caught:
            error = caught.with_traceback(None)  # whose frames hold all that was computed
        out = self.plain(batch, *args, **kwargs)
        self.compiled = None
        _say(_reason(error))
        return out


def compile_in_place(module: nn.Module, device: torch.device, **how: Any) -> None:
    """Compile a module's calls from now on; names and shapes of its parameters stay, as with `nn.Module.compile`.

    Made for batches of ever new lengths. device: where the module will be. how: arguments of torch.compile.
    """
    module._compiled_call_impl = Compiled(module._call_impl, device, lengths_vary=True, **how)


def _leave_open(batch: Any) -> None:
    """Tell the compiler that batch size and length are not to be built in; those of 1 are, whatever one says."""
    for value in vars(batch).values():
        for dim in range(min(value.dim(), 2)) if isinstance(value, Tensor) else ():
            if value.shape[dim] > 1:
                torch._dynamo.maybe_mark_dynamic(value, dim)


def _reason(error: Exception) -> str:
    text, _, _ = one_line(error).partition(" Set TORCHDYNAMO_VERBOSE")  # advice for those who debug the compiler
    return f"{type(error).__name__}: {text[:300]}"


def _say(reason: str) -> None:
    log.warning(f"compile=true: torch.compile does not work here ({reason}): going on without it, results are the same")
