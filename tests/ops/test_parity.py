"""Every backend of every operation against the reference in float64: values and all gradients."""

import dataclasses

import pytest
import torch

from app.devices import NVIDIA
from app.ops import select
from app.ops.check import BOUNDS, cast, compare

HERE = select.operations()
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ON_CPU = [
    (name, backend.name, dtype)
    for name, operation in HERE.items()
    for backend in operation.backends.values()
    if backend.devices is None
    for dtype in DTYPES
]
ON_GPU = [
    (name, backend.name, dtype)
    for name, operation in HERE.items()
    for backend in operation.backends.values()
    for dtype in DTYPES
    if backend.dtypes is None or dtype in backend.dtypes
]


def strided(value):
    """The same numbers, every other one in memory."""
    if not isinstance(value, torch.Tensor) or value.dim() < 2:
        return value
    wide = torch.stack([value, torch.full_like(value, torch.nan if value.is_floating_point() else 0)], dim=-1)
    return wide[..., 0]


def hold(name: str, backend: str, dtype: torch.dtype, device: str, length: int, **changes) -> None:
    operation = HERE[name]
    example = operation.example(length, **changes)
    call = operation.describe(**cast(example, torch.device(device), dtype))
    refuses = operation.backends[backend].refuses
    if reason := refuses(dataclasses.replace(call, backward=False)):
        pytest.skip(f"beyond its limits: {reason}")
    backward = refuses(dataclasses.replace(call, backward=True)) is None
    errors = compare(operation, backend, example, device, dtype, backward)
    assert errors.within(BOUNDS[dtype]), errors


@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize(("name", "backend", "dtype"), ON_CPU)
def test_on_the_cpu(name, backend, dtype, length):
    hold(name, backend, dtype, "cpu", length, batch=2)


@pytest.mark.gpu
@pytest.mark.parametrize("length", [1, 33, 128, 257])
@pytest.mark.parametrize(("name", "backend", "dtype"), ON_GPU)
def test_on_a_gpu(name, backend, dtype, length):
    operation = HERE[name]
    if reason := operation.backends[backend].absent():
        pytest.skip(reason)
    hold(name, backend, dtype, NVIDIA, length, batch=2)


@pytest.mark.parametrize(("name", "backend"), sorted({case[:2] for case in ON_CPU}))
def test_non_contiguous_arguments(name, backend, monkeypatch):
    operation = HERE[name]
    example = operation.example(6)
    spread = {key: strided(value) for key, value in example.items()}
    function = operation.function(backend)
    found, expected = function(**spread), function(**example)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for one, other in pairs:
        torch.testing.assert_close(one, other)
