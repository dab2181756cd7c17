"""torch.compile with a way back: where the compiler is missing or fails, the same numbers come without it."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from app.config.keys import one_line
from app.devices import has_compiler

log = logging.getLogger(__name__)


class Compiled:
    """A function that is compiled when it is first called, and as it was from the compiler's first failure on.

    What fails is called once more without the compiler: where that fails as well, the error is its own, and where it
    does not, the compiler was to blame, which is said once. lengths_vary: one set of kernels for all shapes from the
    start; otherwise the first shape gets kernels of its own, and all shapes after it share a second set. Either way the
    number of compilations does not grow with that of the lengths.
    """

    def __init__(self, function: Callable, device: torch.device, *, lengths_vary: bool, **how: Any):
        """how: further arguments of torch.compile."""
        self.plain = function
        self.compiled: Callable | None = None
        if not has_compiler(device):
            _say(f"its support of {device.type} is a prototype")
            return
        try:
            self.compiled = torch.compile(function, dynamic=True if lengths_vary else None, **how)
        except Exception as error:  # an interpreter or a system that it does not support
            _say(_reason(error))

    def __call__(self, *args, **kwargs) -> Any:
        if self.compiled is None:
            return self.plain(*args, **kwargs)
        try:
            return self.compiled(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as caught:
            error = caught
        out = self.plain(*args, **kwargs)
        self.compiled = None
        _say(_reason(error))
        return out


def compile_in_place(module: nn.Module, device: torch.device, **how: Any) -> None:
    """Compile a module's calls from now on; names and shapes of its parameters stay, as with `nn.Module.compile`.

    Made for batches of ever new lengths. device: where the module will be. how: as `Compiled` takes it.
    """
    module._compiled_call_impl = Compiled(module._call_impl, device, **{"lengths_vary": True} | how)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)[:300]}"


def _say(reason: str) -> None:
    log.warning(f"compile=true: torch.compile does not work here ({reason}): going on without it, results are the same")
