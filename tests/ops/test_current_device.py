"""Triton and packages over it launch on the current GPU: kernels start with that of their tensors made current."""

import importlib
import importlib.util
from contextlib import contextmanager

import pytest
import torch

from app.ops.check import cast, run
from app.ops.select import operations
from tests.conftest import HAS_GPU
from tests.ops.conftest import NARROW

KERNELS = {
    "edge_embedding": {"kernels": ("forward_kernel",)},
    "self_attention": {"streamed": ("attend",)},
    "edge_transition": {"kernels": ("forward_kernel", "remake_kernel", "backward_kernel")},
    "invariant_point_attention": {
        "fused_points": ("widen", "widen_backward"),
        "fused_means": ("narrow", "narrow_backward"),
        "fused_forward": ("attend",),
        "fused_backward": ("by_queries", "by_keys"),
    },
}


class Watched:
    """A kernel that notes on which device it is launched."""

    def __init__(self, kernel, current: list, launched: list):
        self.kernel, self.current, self.launched = kernel, current, launched

    def __getitem__(self, grid):
        self.launched.append(self.current[-1] if self.current else None)
        return self.kernel[grid]


@pytest.mark.skipif(HAS_GPU or not importlib.util.find_spec("triton"), reason="needs triton's interpreter")
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_of_ours_is_launched_on_the_device_of_its_tensors(name, monkeypatch):
    operation, current, launched = operations()[name], [], []

    @contextmanager
    def noted(device: torch.device):
        current.append(device)
        yield
        current.pop()

    function, backend = operation.function("triton"), operation.backends["triton"]
    monkeypatch.setattr(f"app.ops.{name}.{backend.module}.current", noted)
    for module, kernels in KERNELS[name].items():
        home = importlib.import_module(f"app.ops.{name}.{module}")
        for kernel in kernels:
            monkeypatch.setattr(home, kernel, Watched(getattr(home, kernel), current, launched))
    given = cast(operation.example(3, **NARROW[name]), torch.device("cpu"), torch.float32)
    run(function, given, backend.backward)
    assert launched == [torch.device("cpu")] * sum(map(len, KERNELS[name].values()))
