"""Without any key attention gives exactly 0, and gradients that are exactly 0, whatever absent keys hold."""

import dataclasses

import pytest
import torch

from app.devices import NVIDIA
from app.ops.absent import as_bias, filled
from app.ops.check import cast, run
from app.ops.select import operations
from tests.ops.conftest import NARROW
from tests.ops.test_parity import interpreter

HERE = operations()
MASKS = {
    "triangle_attention": "mask",
    "pair_bias_attention": "key_mask",
    "self_attention": "key_mask",
    "factorised_attention": "node_mask",
}
CASES = [(name, backend.name) for name in MASKS for backend in HERE[name].backends.values() if backend.devices is None]
PACKAGES = [(name, backend.name) for name in MASKS for backend in HERE[name].backends.values() if backend.devices]
INTERPRETED = [(name, "triton", "cpu") for name in MASKS if name in NARROW]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
every_case = pytest.mark.parametrize(
    ("name", "backend", "device"),
    [(*case, "cpu") for case in CASES]
    + [pytest.param(*case, marks=interpreter) for case in INTERPRETED]
    + [pytest.param(*case, NVIDIA, marks=pytest.mark.gpu) for case in (*CASES, *PACKAGES)],
)


def example(name: str, backend: str, device: str, dtype: torch.dtype) -> dict:
    """Two examples on the device, where the backend takes them; else the test skips."""
    one = HERE[name].backends[backend]
    given = cast(HERE[name].example(max(5, one.shortest), batch=2), torch.device(device), dtype)
    call = dataclasses.replace(HERE[name].describe(**given), backward=one.backward)
    if device == "cpu":  # under the interpreter
        one = dataclasses.replace(one, devices=None)
    if reason := one.absent() or one.refuses(call):
        pytest.skip(reason)
    return given


@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_without_any_key_all_is_exactly_zero(name, backend, device, dtype):
    given = example(name, backend, device, dtype)
    given[MASKS[name]] = torch.zeros_like(given[MASKS[name]])
    found = run(HERE[name].function(backend), given, HERE[name].backends[backend].backward)
    for value in (*found.outputs, *found.gradients.values()):
        assert (value == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_an_example_without_keys_leaves_the_other_as_it_is(name, backend, device, dtype):
    given = example(name, backend, device, dtype)
    given[MASKS[name]][1] = 0
    found = run(HERE[name].function(backend), given, HERE[name].backends[backend].backward)
    for value in found.outputs:
        assert value[0].any() and (value[1] == 0).all()
    for key, value in found.gradients.items():
        if key != "point_weight":
            assert value[0].any() and (value[1] == 0).all(), key


def test_rows_without_keys_are_filled_and_told():
    keys, some = filled(torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    assert keys.tolist() == [[True, False, True], [True, True, True]] and some.tolist() == [True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bias_of_an_absent_key_leaves_it_no_weight_and_stays_finite(dtype):
    bias = as_bias(torch.tensor([True, False]), dtype)
    assert (bias + torch.tensor([0, -1000], dtype=dtype)).isfinite().all()
    assert bias.softmax(-1).tolist() == [1, 0]
