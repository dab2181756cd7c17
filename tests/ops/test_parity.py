"""Every backend of every operation against the reference in float64: values and all gradients."""

import dataclasses
from collections.abc import Mapping
from copy import copy
from importlib.util import find_spec
from types import MappingProxyType

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from app.devices import NVIDIA
from app.ops import select
from app.ops.check import BOUNDS, cast, compare, mapped, run
from app.types import Frames
from tests.conftest import HAS_GPU
from tests.ops.conftest import NARROW
from tests.ops.layouts import EVERY_LAYOUT, LAYOUTS, Layout, every_other

HERE = select.operations()
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BACKENDS = [(name, backend) for name, operation in HERE.items() for backend in operation.backends.values()]
ON_CPU = [(name, backend.name, dtype) for name, backend in BACKENDS if backend.devices is None for dtype in DTYPES]
ON_GPU = [
    (name, backend.name, dtype)
    for name, backend in BACKENDS
    for dtype in DTYPES
    if backend.dtypes is None or dtype in backend.dtypes
]
JUDGE = "reference"

WITH_BACKWARD = [case for case in ON_GPU if HERE[case[0]].backends[case[1]].backward]
OURS_WITH_BACKWARD = [name for name in NARROW if HERE[name].backends["triton"].backward]

every_interpreted = pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in NARROW for dtype in (torch.float32, torch.float16)]
)
interpreter = pytest.mark.skipif(HAS_GPU or not find_spec("triton"), reason="needs triton, on a machine without a GPU")


def hold(
    name: str,
    backend: str,
    dtype: torch.dtype,
    device: str,
    example: dict,
    layout: Layout | None = None,
    but: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """A backend's errors on an example are within the bounds of the dtype, where it is within its limits.

    layout: how the arguments lie in memory where the backend gets them. but: bounds of some gradients that are others.
    """
    operation = HERE[name]
    one = operation.backends[backend]
    if device != "cpu" and (reason := one.absent()):
        pytest.skip(reason)
    call = operation.describe(**cast(example, torch.device(device), dtype))
    if device == "cpu" and one.devices:  # under the interpreter, which has types that the kernels do without
        one = dataclasses.replace(one, devices=None, dtypes=None)
    if reason := one.refuses(dataclasses.replace(call, backward=False)):
        pytest.skip(f"beyond its limits: {reason}")
    backward = one.refuses(dataclasses.replace(call, backward=True)) is None
    if layout:
        operation, backend = laid_out(operation, backend, layout)
    errors = compare(operation, backend, example, device, dtype, backward)
    assert errors.within(BOUNDS[dtype], but), errors


def laid_out(operation: select.Operation, backend: str, layout: Layout) -> tuple[select.Operation, str]:
    """An operation with one more backend, which is that one with all arguments, and gradients of its results, laid out;
    and its name."""
    more, function = copy(operation), operation.function(backend)

    def spread(**given):
        made = function(**{key: mapped(layout, value) for key, value in given.items()})
        return mapped(every_other, made)  # of which the gradient is laid out so too

    more._functions = {JUDGE: operation.function(JUDGE), "laid out": spread}
    return more, "laid out"


@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize(("name", "backend", "dtype"), ON_CPU)
def test_on_the_cpu(name, backend, dtype, length):
    hold(name, backend, dtype, "cpu", HERE[name].example(length, batch=2))


@pytest.mark.gpu
@pytest.mark.parametrize("length", [1, 33, 128, 257])
@pytest.mark.parametrize(("name", "backend", "dtype"), ON_GPU)
def test_on_a_gpu(name, backend, dtype, length):
    hold(name, backend, dtype, NVIDIA, HERE[name].example(length, batch=2))


# Long chains

OF_LONG_CHAINS_IN_BFLOAT16 = {"factorised_attention": {"point_weight": 0.25}}
"""A gradient over the squared distances between neighbours is what is left of sums that go with the protein's size."""


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("length", [385, 512])
@pytest.mark.parametrize(
    ("name", "backend"),
    [case[:2] for case in ON_GPU if case[2] == torch.bfloat16 and case[1] != JUDGE],
)
def test_of_long_chains_on_a_gpu(name, backend, length, batch):
    """In float64 the logits of two examples of triangle attention are 9 GB, and the judge has several such tensors."""
    torch.cuda.empty_cache()
    but = OF_LONG_CHAINS_IN_BFLOAT16.get(name, {})
    hold(name, backend, torch.bfloat16, NVIDIA, HERE[name].example(length, batch=batch), but=but)


@interpreter
@pytest.mark.usefixtures("large_tiles")
@every_interpreted
@pytest.mark.parametrize("batch", [1, 2])
def test_of_more_than_a_tile_under_the_interpreter(name, dtype, batch):
    hold(name, "triton", dtype, "cpu", HERE[name].example(18, batch=batch, **NARROW[name]))


# Arguments that do not lie together in memory


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "backend"), [case[:2] for case in ON_CPU if case[2] == torch.float32])
def test_strided_arguments(name, backend, layout):
    hold(name, backend, torch.float32, "cpu", HERE[name].example(6, batch=2), layout)


@interpreter
@pytest.mark.usefixtures("large_tiles")
@pytest.mark.parametrize("layout", EVERY_LAYOUT)
@every_interpreted
def test_strided_arguments_under_the_interpreter(name, dtype, layout):
    hold(name, "triton", dtype, "cpu", HERE[name].example(5, batch=2, **NARROW[name]), layout)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "backend", "dtype", "layout"),
    [
        (*case, layout)
        for case in ON_GPU
        if case[2] != torch.float16 and case[1] != JUDGE
        for layout in (EVERY_LAYOUT if case[1] == "triton" else LAYOUTS)
    ],
)
def test_strided_arguments_on_a_gpu(name, backend, dtype, layout):
    length = max(33, HERE[name].backends[backend].shortest)
    hold(name, backend, dtype, NVIDIA, HERE[name].example(length, batch=2), layout)


# In a block whose activations are made again in the backward pass


def remade(name: str, backend: str, dtype: torch.dtype, device: str, example: dict) -> None:
    function = HERE[name].function(backend)
    given = cast(example, torch.device(device), dtype)
    found = run(lambda **leaves: checkpoint(function, use_reentrant=False, **leaves), given)
    expected = run(function, given)
    bound = BOUNDS[dtype]  # atomic sums differ from run to run
    torch.testing.assert_close(found.outputs, expected.outputs, rtol=bound, atol=bound)
    torch.testing.assert_close(found.gradients, expected.gradients, rtol=bound, atol=bound)


@pytest.mark.parametrize(("name", "backend"), [case[:2] for case in ON_CPU if case[2] == torch.float32])
def test_with_activations_made_again(name, backend):
    remade(name, backend, torch.float32, "cpu", HERE[name].example(5, batch=2))


@interpreter
@pytest.mark.usefixtures("large_tiles")
@pytest.mark.parametrize("name", OURS_WITH_BACKWARD)
def test_with_activations_made_again_under_the_interpreter(name):
    remade(name, "triton", torch.float32, "cpu", HERE[name].example(5, batch=2, **NARROW[name]))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "backend"), [case[:2] for case in WITH_BACKWARD if case[2] == torch.bfloat16 and case[1] != JUDGE]
)
def test_with_activations_made_again_on_a_gpu(name, backend):
    one = HERE[name].backends[backend]
    if reason := one.absent():
        pytest.skip(reason)
    remade(name, backend, torch.bfloat16, NVIDIA, HERE[name].example(max(33, one.shortest), batch=2))


# Far from the origin


OF_FRAMES = [name for name, operation in HERE.items() if "frames" in operation.example(1)]


def far(name: str, length: int, **widths) -> dict:
    """An example whose residues are 60 nm from the origin."""
    example = HERE[name].example(length, batch=2, **widths)
    away = 60 * torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    return {**example, "frames": Frames(example["frames"].rotmats, example["frames"].trans + away)}


@pytest.mark.parametrize(("name", "backend", "dtype"), [case for case in ON_CPU if case[0] in OF_FRAMES])
def test_far_from_the_origin(name, backend, dtype):
    hold(name, backend, dtype, "cpu", far(name, 17))


@interpreter
@pytest.mark.usefixtures("large_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", [name for name in NARROW if name in OF_FRAMES])
def test_far_from_the_origin_under_the_interpreter(name, dtype):
    hold(name, "triton", dtype, "cpu", far(name, 9, **NARROW[name]))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "backend", "dtype"), [case for case in ON_GPU if case[0] in OF_FRAMES])
def test_far_from_the_origin_on_a_gpu(name, backend, dtype):
    hold(name, backend, dtype, NVIDIA, far(name, 129))


# Nothing


@pytest.mark.parametrize(("length", "batch"), [(5, 0), (0, 2), (0, 0)])
@pytest.mark.parametrize(
    ("name", "backend"), [case[:2] for case in ON_CPU if case[2] == torch.float32 and case[1] != JUDGE]
)
def test_of_nothing_it_makes_what_the_reference_makes(name, backend, length, batch):
    nothing(name, backend, "cpu", HERE[name].example(length, batch=batch))


@interpreter
@pytest.mark.parametrize(("length", "batch"), [(5, 0), (0, 2)])
@pytest.mark.parametrize("name", NARROW)
def test_of_nothing_under_the_interpreter(name, length, batch):
    nothing(name, "triton", "cpu", HERE[name].example(length, batch=batch, **NARROW[name]))


@pytest.mark.gpu
@pytest.mark.parametrize(("length", "batch"), [(5, 0), (0, 2)])
@pytest.mark.parametrize("name", NARROW)
def test_of_nothing_on_a_gpu(name, length, batch):
    nothing(name, "triton", NVIDIA, HERE[name].example(length, batch=batch))


def nothing(name: str, backend: str, device: str, example: dict) -> None:
    given = cast(example, torch.device(device), torch.float32 if device == "cpu" else torch.bfloat16)
    backward = HERE[name].backends[backend].backward
    found, expected = (run(HERE[name].function(one), given, backward) for one in (backend, "reference"))
    torch.testing.assert_close(found.outputs, expected.outputs)
    torch.testing.assert_close(found.gradients, expected.gradients)


# Several GPUs


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(
    ("name", "backend"), [case[:2] for case in ON_GPU if case[2] == torch.bfloat16 and case[1] != JUDGE]
)
def test_on_a_gpu_that_is_not_the_current_one(name, backend):
    assert torch.cuda.current_device() == 0
    length = max(33, HERE[name].backends[backend].shortest)
    hold(name, backend, torch.bfloat16, f"{NVIDIA}:1", HERE[name].example(length, batch=2))
    assert torch.cuda.current_device() == 0
