"""Examples: a call's widths make one like it, and at any widths what is right is within its bounds."""

import pytest
import torch

from app.ops import select
from app.ops.backend import FLOATS
from app.ops.check import BOUNDS, cast, compare

HERE = select.operations()


def halved(name: str) -> tuple[int, ...]:
    return tuple(max(1, width // 2) for width in HERE[name].published.widths)


@pytest.mark.parametrize("name", HERE)
def test_the_widths_of_a_call_make_an_example_of_it(name):
    operation = HERE[name]
    shapes = [
        {key: tensor.shape for key, tensor in example.items() if isinstance(tensor, torch.Tensor)}
        for example in (operation.example(5), operation.example(5, 1, 0, *operation.published.widths))
    ]
    assert shapes[0] == shapes[1]
    call = operation.describe(**operation.example(5, 1, 0, *halved(name)))
    assert call.widths == halved(name) != operation.published.widths


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", HERE)
def test_what_is_right_is_not_held_to_be_wrong_at_other_widths(name, dtype):
    """Else a backend would be passed over for the example's sake."""
    for backend in ("reference", "torch"):
        errors = compare(HERE[name], backend, HERE[name].example(33, 1, 1, *halved(name)), "cpu", dtype)
        assert errors.within(BOUNDS[dtype]), errors


def test_an_example_is_cast_as_a_whole():
    given = cast(HERE["triangle_multiplication"].example(3, c_z=16, inner=8), torch.device("cpu"), torch.float32)
    assert given["p_in"].shape == (16, 16) and given["p_out"].shape == (16, 8)
    assert HERE["triangle_multiplication"].describe(**given).widths == (16, 8)
