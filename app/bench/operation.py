"""One operation by itself, at published widths: forward, and forward with backward.

`max_error` is the largest difference, anywhere, from the reference in float32 on the same inputs, which are rounded to
the dtype first, as a share of the largest entry of the tensor in question: of an output, or of a gradient.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from app.bench.case import AUTO, REFERENCE, Case, Job, Outputs, Point, Sizes, largest_share_of_each
from app.devices import CPU, MPS, NVIDIA
from app.ops import select
from app.ops.check import cast, with_leaves
from app.ops.select import Operation

TRAIN = "-train"

_SIZES = {
    CPU: Sizes((128, 256)),
    MPS: Sizes((128, 256)),
    NVIDIA: Sizes((128, 256, 512), ("float32", "bfloat16")),
}


def cases() -> list[Case]:
    """Two for each operation: NAME is the forward pass alone, NAME-train has the gradients of all arguments too."""
    return [
        Case(operation.name + ending, partial(job, operation, bool(ending)), partial(backends, operation), _SIZES)
        for operation in select.operations().values()
        for ending in ("", TRAIN)
    ]


def backends(operation: Operation, device: str) -> list[str]:
    """The reference, `auto`, and what else is installed that runs on such a device."""
    own = [
        backend.name
        for backend in operation.backends.values()
        if backend.name != REFERENCE and not backend.absent() and (backend.devices is None or device in backend.devices)
    ]
    return [REFERENCE, AUTO, *own]


def job(operation: Operation, backward: bool, point: Point) -> Job:
    device = point.torch_device
    rounded = cast(operation.example(point.length, batch=point.size), device, point.torch_dtype)
    given = Given(rounded, backward)
    call = operation.describe(**given.arguments)

    def function(backend: str) -> Callable:
        return operation if backend == AUTO else operation.function(backend)

    def outputs(backend: str, dtype: torch.dtype) -> Outputs:
        if dtype == point.torch_dtype:
            return given.named(given.run(function(backend)))
        precise = Given(cast(rounded, device, dtype, all_of_it=True), backward)
        return precise.named(precise.run(function(backend)))

    return Job(
        run=lambda backend: given.run(function(backend)),
        outputs=outputs,
        error=largest_share_of_each,
        refuses=lambda backend: None if backend == AUTO else operation.backends[backend].refuses(call),
        batch=lambda backend: point.size,
        queued=True,
    )


class Given:
    """Arguments to run an operation on, and to differentiate it by."""

    def __init__(self, arguments: dict[str, Any], backward: bool):
        self.arguments, self.leaves = with_leaves(arguments) if backward else (arguments, {})
        self._weights: list[Tensor] = []

    def run(self, function: Callable) -> Sequence[Tensor]:
        """Outputs, or where there is a backward pass the gradients of all leaves."""
        with torch.set_grad_enabled(bool(self.leaves)):
            out = function(**self.arguments)
        outputs = out if isinstance(out, tuple) else (out,)
        if not self.leaves:
            return outputs
        self._weights = self._weights or [_weights(one) for one in outputs]
        return torch.autograd.grad(outputs, list(self.leaves.values()), self._weights, materialize_grads=True)

    def named(self, results: Sequence[Tensor]) -> Outputs:
        return dict(zip(self.leaves or map(str, range(len(results))), results, strict=True))


def _weights(out: Tensor) -> Tensor:
    """What the gradient comes in with, the same for every backend: random, lest it cancel in sums over all pairs."""
    source = torch.Generator(out.device).manual_seed(1)
    return torch.randn(out.shape, generator=source, device=out.device).to(out.dtype)
