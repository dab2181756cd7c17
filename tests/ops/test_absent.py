"""Without any key attention gives exactly 0, and gradients that are exactly 0, whatever absent keys hold."""

import pytest
import torch

from app.ops.absent import as_bias, filled
from app.ops.check import cast, run
from app.ops.select import operations

HERE = operations()
CPU = torch.device("cpu")
MASKS = {
    "triangle_attention": "mask",
    "pair_bias_attention": "key_mask",
    "self_attention": "key_mask",
    "factorised_attention": "node_mask",
}
CASES = [(name, backend.name) for name in MASKS for backend in HERE[name].backends.values() if backend.devices is None]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_without_any_key_all_is_exactly_zero(name, backend, dtype):
    given = cast(HERE[name].example(5, batch=2), CPU, dtype)
    given[MASKS[name]] = torch.zeros_like(given[MASKS[name]])
    found = run(HERE[name].function(backend), given)
    for value in (*found.outputs, *found.gradients.values()):
        assert (value == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_an_example_without_keys_leaves_the_other_as_it_is(name, backend, dtype):
    given = cast(HERE[name].example(5, batch=2), CPU, dtype)
    given[MASKS[name]][1] = 0
    found = run(HERE[name].function(backend), given)
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
