"""Long computations a few rows at a time, in Python and as the one operator that a compiler sees."""

import pytest
import torch

from app.ops.recompute import by_rows, rows_within
from tests.factories import generator

SEEN: list[int] = []


@by_rows
def product(a: torch.Tensor, b: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    SEEN.append(a.shape[1])
    return (a * b) @ whole


@by_rows
def places(a: torch.Tensor, number: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Arguments without a gradient, and one that is not read."""
    return table[number] + 0 * a.detach()


def inputs(dtype: torch.dtype = torch.float32, length: int = 7) -> list[torch.Tensor]:
    source = generator()
    shapes = [(2, length, 3), (2, length, 3), (3, 3)]
    return [torch.randn(shape, generator=source, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def on_split(rows: int, a: torch.Tensor, b: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return product(rows, [a, b], [whole])


def value_and_gradients(function, given: list[torch.Tensor]) -> list[torch.Tensor]:
    out = function(*given)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), given)]


@pytest.fixture(autouse=True)
def _forget():
    SEEN.clear()
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_slices_give_what_the_whole_gives_with_all_gradients(rows, dtype):
    found = value_and_gradients(lambda *given: on_split(rows, *given), inputs(dtype))
    expected = value_and_gradients(lambda a, b, whole: (a * b) @ whole, inputs(dtype))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("rows", "calls"), [(7, [7]), (3, [3, 3, 1, 1, 3, 3])])
def test_one_slice_is_made_once_and_more_again_in_the_backward_pass(rows, calls):
    on_split(rows, *inputs()).sum().backward()
    assert sorted(SEEN) == sorted(calls)


def test_nothing_is_made_twice_where_no_gradient_is_wanted():
    with torch.no_grad():
        on_split(2, *inputs())
    assert SEEN == [2, 2, 2, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_to_a_compiler_it_is_one_operator_for_all_lengths(dtype):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda *given: on_split(3, *given), backend=backend, fullgraph=True, dynamic=True)
    for length in (7, 8, 2, 31):
        given = inputs(dtype, length)
        found = value_and_gradients(compiled, given)
        SEEN.clear()
        expected = value_and_gradients(lambda *given: on_split(3, *given), given)
        for one, other in zip(found, expected, strict=True):
            close = {"rtol": 0.05, "atol": 1e-2} if dtype == torch.bfloat16 else {}  # where Python adds up in less
            torch.testing.assert_close(one, other, **close)
    (graph,) = graphs
    assert sum("recompute" in str(node.target) for node in graph.graph.nodes) == 1


def test_the_operator_makes_each_slice_once_forward_and_once_backward():
    compiled = torch.compile(lambda *given: on_split(3, *given), backend="aot_eager", fullgraph=True)
    out = compiled(*inputs())
    SEEN.clear()  # of the tracing as well
    out = compiled(*inputs())
    assert SEEN == [3, 3, 1]
    out.sum().backward()
    assert SEEN == [3, 3, 1] * 2


def test_what_is_known_to_be_one_slice_is_left_to_the_compiler():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compile(lambda *given: on_split(7, *given), backend=backend, fullgraph=True, dynamic=False)(*inputs())
    assert not any("recompute" in str(node.target) for node in graphs[0].graph.nodes)


def test_what_has_no_gradient_needs_none():
    compiled = torch.compile(lambda *given: places(2, given[:2], given[2:]), backend="aot_eager", fullgraph=True)
    table, number = torch.randn(5, 3, requires_grad=True), torch.randint(5, (2, 7))
    for a in (torch.randn(2, 7, 3), torch.randn(2, 7, 3, requires_grad=True)):
        gradients = []
        for function in (compiled, lambda *given: places(2, given[:2], given[2:])):
            out = function(a, number, table)
            gradients.append(torch.autograd.grad(out.square().sum(), table)[0])
        torch.testing.assert_close(*gradients)


def test_sums_over_slices_lose_nothing_in_half_precision():
    """512 slices whose gradients are 1 each: added up in bfloat16 they would end at 256."""
    given = torch.ones(1, 512, 1, dtype=torch.bfloat16)
    whole = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    compiled = torch.compile(lambda whole: on_split(1, given, given, whole), backend="aot_eager", fullgraph=True)
    compiled(whole).sum(dtype=torch.float32).backward()
    assert whole.grad.item() == 512


@pytest.mark.parametrize(("largest", "row", "rows"), [(10, 3, 3), (10, 10, 1), (10, 11, 1), (10, 0, 10), (0, 3, 1)])
def test_as_many_rows_as_there_is_room_for_and_one_at_least(largest, row, rows):
    assert rows_within(largest, row) == rows
