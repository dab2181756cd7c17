"""Where in a model numbers stop being finite."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass
class FirstNotFinite:
    """Modules by name and class; None where all is finite.

    forward: the first whose output is not, in the order in which they end: a module before the one that contains it.
    backward: the first whose gradient is not, in the order of the backward pass: that of its parameters, or of what it
    was given.
    """

    forward: str | None = None
    backward: str | None = None


@contextmanager
def watched(model: nn.Module) -> Iterator[FirstNotFinite]:
    """Fills in what is found in the passes made within."""
    found = FirstNotFinite()
    takers = WeakTensorKeyDictionary()  # of a tensor, the modules that were given it

    def look_at(names: list[str], gradient: Tensor) -> None:
        if found.backward is None and not bool(gradient.isfinite().all()):
            found.backward = names[-1]  # of those that share it, the first of the backward pass

    def note_inputs(name: str) -> Callable:
        def hook(_module: nn.Module, arguments: tuple, keywords: dict) -> None:
            for tensor in _floats((arguments, keywords)):
                if tensor.requires_grad:
                    if tensor not in takers:
                        takers[tensor] = names = []
                        tensor.register_hook(partial(look_at, names))
                    takers[tensor].append(name)

        return hook

    def look_at_output(name: str) -> Callable:
        def hook(_module: nn.Module, _arguments: tuple, output: Any) -> None:
            if found.forward is None and not all(bool(tensor.isfinite().all()) for tensor in _floats(output)):
                found.forward = name

        return hook

    handles = []
    for path, module in model.named_modules():
        name = f"{path or 'the model'} ({type(module).__name__})"
        handles.append(module.register_forward_pre_hook(note_inputs(name), with_kwargs=True))
        handles.append(module.register_forward_hook(look_at_output(name)))
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                handles.append(parameter.register_hook(partial(look_at, [name])))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _floats(value: Any) -> Iterator[Tensor]:
    """Tensors of floats in nested containers and dataclasses."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
        return
    if dataclasses.is_dataclass(value):
        value = vars(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for part in parts:
        yield from _floats(part)
