"""Long computations a few rows at a time."""

import pytest
import torch

from app.ops.recompute import by_rows, rows_within
from tests.factories import generator


def inputs() -> list[torch.Tensor]:
    source = generator()
    return [torch.randn(2, 7, 3, generator=source).requires_grad_() for _ in range(2)] + [
        torch.randn(3, 3, generator=source).requires_grad_()
    ]


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_slices_give_what_the_whole_gives_with_all_gradients(rows):
    found, expected = inputs(), inputs()
    out = by_rows(lambda a, b: (a * b) @ found[2], rows, *found[:2])
    whole = (expected[0] * expected[1]) @ expected[2]
    torch.testing.assert_close(out, whole)
    out.square().sum().backward()
    whole.square().sum().backward()
    for leaf, judge in zip(found, expected, strict=True):
        torch.testing.assert_close(leaf.grad, judge.grad)


@pytest.mark.parametrize(("rows", "calls"), [(7, [7]), (3, [3, 3, 1, 1, 3, 3])])
def test_one_slice_is_made_once_and_more_again_in_the_backward_pass(rows, calls):
    seen = []

    def function(a):
        seen.append(a.shape[1])
        return a.exp()

    by_rows(function, rows, inputs()[0]).sum().backward()
    assert sorted(seen) == sorted(calls)


def test_nothing_is_made_twice_where_no_gradient_is_wanted():
    seen = []
    with torch.no_grad():
        by_rows(lambda a: seen.append(a.shape[1]) or a, 2, inputs()[0])
    assert seen == [2, 2, 2, 1]


@pytest.mark.parametrize(("largest", "row", "rows"), [(10, 3, 3), (10, 10, 1), (10, 11, 1), (10, 0, 10), (0, 3, 1)])
def test_as_many_rows_as_there_is_room_for_and_one_at_least(largest, row, rows):
    assert rows_within(largest, row) == rows
