"""A backend held against the reference in float64: values and all gradients."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from app.config.keys import one_line
from app.devices import CPU, NVIDIA, full_precision, is_out_of_memory
from app.ops.backend import Backend, Call
from app.ops.select import Operation

BOUNDS = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest error by dtype, of values and of gradients, as a share of the largest entry of the tensor in question.

Inputs are rounded to the dtype first, so that what is measured is the backend's own error.
"""

TF32_BOUND = 2e-3
"""The same in float32 where products may be rounded to TF32."""

FULL_PRECISION = ("frames", "mask", "points", "trans")
"""Arguments with these words in their names are float32 whatever the rest is."""

VANISHING = 1e-9
"""Share of the largest gradient below which one in float64 is 0 but for rounding."""

PROBE_LENGTH = 33
"""Residues of the example by which a backend is tried: odd, and more than one tile of most kernels is high."""

MOST_PROBED = 512
"""Residues for which the reference, in float64, can be asked for any operation."""


@dataclass(frozen=True)
class Errors:
    """Largest errors of values and of each argument's gradient, as shares of each tensor's largest entry. NaN is
    infinite."""

    values: float
    of_gradients: dict[str, float] | None  # None where there was no backward pass

    @property
    def gradients(self) -> float | None:
        return None if self.of_gradients is None else self.of_gradients[self.worst]

    @property
    def worst(self) -> str:
        """The argument whose gradient is the worst."""
        return max(self.of_gradients, key=self.of_gradients.__getitem__) if self.of_gradients else ""

    def within(self, bound: float, but: Mapping[str, float] = MappingProxyType({})) -> bool:
        """but: bounds of some gradients that are others."""
        found = (self.of_gradients or {}).items()
        return self.values <= bound and all(error <= but.get(name, bound) for name, error in found)


@dataclass(frozen=True)
class Result:
    outputs: list[Tensor]
    gradients: dict[str, Tensor]


def fault(operation: Operation, name: str, call: Call) -> str | None:
    """What goes wrong where a backend computes a small example of a call's widths, in words, or None. The call's length
    does not matter.

    Raises whatever says that memory did not suffice, which is not the backend's fault.
    """
    try:
        example = operation.example(probe_length(operation.backends[name], call), 1, 1, *call.widths)
        with full_precision(call.device):  # the call may come from under autocast, and tells the type without it
            errors = compare(operation, name, example, call.device, call.dtype, call.backward)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return f"fails here ({type(error).__name__}: {one_line(error)[:160]})"
    if errors.within(bound(call.dtype)):
        return None
    return f"gives wrong answers here (values off by {errors.values:.1e}, gradients by {errors.gradients or 0:.1e})"


def probe_length(backend: Backend, call: Call) -> int:
    """The least number of residues from PROBE_LENGTH on that the backend takes, as far as MOST_PROBED."""
    lengths = range(PROBE_LENGTH, MOST_PROBED + 1)
    serves = (length for length in lengths if backend.refuses(dataclasses.replace(call, length=length)) is None)
    return next(serves, PROBE_LENGTH)


def bound(dtype: torch.dtype) -> float:
    """The largest error that is no fault, in the precision of float32 products that the process has chosen."""
    rounded = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return TF32_BOUND if rounded else BOUNDS[dtype]


def compare(
    operation: Operation,
    name: str,
    example: dict[str, Any],
    device: torch.device | str,
    dtype: torch.dtype,
    backward: bool = True,
) -> Errors:
    """The errors of a backend on an example rounded to `dtype`; the judge sees the same numbers in float64."""
    device = torch.device(device)
    given = cast(example, device, dtype)
    found = run(operation.function(name), given, backward)
    bench = device if device.type == NVIDIA else torch.device(CPU)  # which has float64 for certain
    judge = run(operation.function("reference"), cast(given, bench, torch.float64, all_of_it=True), backward)
    values = max(_error(*pair) for pair in zip(found.outputs, judge.outputs, strict=True))
    if not backward:
        return Errors(values, None)
    largest = max(gradient.abs().max().item() for gradient in judge.gradients.values()) or 1.0
    return Errors(values, {key: _error(found.gradients[key], judge.gradients[key], largest) for key in judge.gradients})


def cast(example: dict[str, Any], device: torch.device, dtype: torch.dtype, all_of_it: bool = False) -> dict[str, Any]:
    """The arguments on a device in a dtype; positions and masks stay float32 unless `all_of_it`."""

    def one(name: str) -> Callable[[Tensor], Tensor]:
        keeps = not all_of_it and any(word in name for word in FULL_PRECISION)
        kept = torch.float32 if keeps else dtype
        return lambda tensor: tensor.detach().to(device, kept if tensor.is_floating_point() else None)

    return {name: mapped(one(name), value) for name, value in example.items()}


def run(function: Callable, arguments: dict[str, Any], backward: bool = True) -> Result:
    """Outputs, and gradients of their product with fixed random numbers with respect to all but masks, by name."""
    given, leaves = with_leaves(arguments) if backward else (arguments, {})
    with torch.set_grad_enabled(backward):
        out = function(**given)
        outputs = list(out) if isinstance(out, tuple) else [out]
        if not backward:
            return Result(outputs, {})
        loss = _weighed(outputs)
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    made = {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    }
    return Result([o.detach() for o in outputs], made)


def with_leaves(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments with every tensor but masks made a leaf that has a gradient, and those leaves by their names."""
    leaves: dict[str, Tensor] = {}
    return {name: _leaf(name, value, leaves) for name, value in arguments.items()}, leaves


def _weighed(outputs: list[Tensor]) -> Tensor:
    """The sum of all entries, each times a random number that is the same for every backend."""
    source, total = torch.Generator().manual_seed(0), 0.0
    for out in outputs:
        precise = torch.promote_types(out.dtype, torch.float32)
        weight = torch.randn(out.shape, generator=source, dtype=torch.float64).to(out.device, precise)
        total = total + (out.to(precise) * weight).sum()
    return total


def _leaf(name: str, value: Any, leaves: dict[str, Tensor]) -> Any:
    """The value with every tensor of numbers that has a gradient made a leaf of its own, collected under its name."""
    if isinstance(value, Tensor):
        if not value.is_floating_point() or "mask" in name:
            return value
        leaves[name] = value.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        return leaves[name]
    return _mapped_by_name(lambda path, tensor: _leaf(path, tensor, leaves), name, value)


def mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`function` of every tensor in an argument: a tensor, or tuples and dataclasses (frames) of them."""
    return _mapped_by_name(lambda _, tensor: function(tensor), "", value)


def _mapped_by_name(function: Callable[[str, Tensor], Any], name: str, value: Any) -> Any:
    """`function` of every tensor in tuples and dataclasses (frames), with its dotted name; all else as it is."""
    if isinstance(value, Tensor):
        return function(name, value)
    if isinstance(value, tuple):
        return tuple(_mapped_by_name(function, f"{name}.{place}", item) for place, item in enumerate(value))
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return type(value)(*(_mapped_by_name(function, f"{name}.{key}", getattr(value, key)) for key in names))
    return value


def _error(found: Tensor, expected: Tensor, largest: float = 1.0) -> float:
    """Largest difference as a share of the largest expected entry; infinite where anything is not finite.

    What is to be 0 (attention to a single key has no gradient) has no size of its own: `largest` is taken for it.
    """
    expected = expected.detach().double()
    found = found.detach().to(expected.device).double()  # there, as not every device has float64
    if found.shape != expected.shape:
        return float("inf")
    if not found.numel():
        return 0.0
    size = expected.abs().max().item()
    off = (found - expected).abs().max().item() / (size if size > VANISHING * largest else largest)
    return off if off == off else float("inf")
