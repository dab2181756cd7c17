"""Triangle multiplication: the version that is used against the reference, masks, memory."""

import pytest
import torch

from app.ops.triangle_multiplication import chunked, reference, triangle_multiplication
from tests.factories import generator
from tests.memory import peak

B, N, C, D = 2, 9, 6, 4


def arguments(direction: str, length: int = N, missing: int = 2, size: int = B) -> list:
    source = generator()

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source).requires_grad_()

    present = torch.ones(size, length)
    present[-1, length - missing :] = 0
    mask = present[:, :, None] * present[:, None]
    weights = [(normal(C), normal(C)), normal(2 * D, C), normal(2 * D, C), (normal(D), normal(D)), normal(C, D)]
    return [normal(size, length, length, C), mask, direction, *weights, normal(C, C)]


def leaves(given: list) -> list[torch.Tensor]:
    flat = [x for part in given for x in (part if isinstance(part, tuple) else [part])]
    return [x for x in flat if isinstance(x, torch.Tensor) and x.requires_grad]


both_directions = pytest.mark.parametrize("direction", ["outgoing", "incoming"])


@pytest.fixture(params=[1, 2 * B * N * C, 4 * B * N * C, 2**30], ids=["1 row", "2 rows", "4 rows", "all"])
def largest(request, monkeypatch):
    monkeypatch.setattr(chunked, "LARGEST", request.param)


@both_directions
@pytest.mark.usefixtures("largest")
def test_it_is_the_reference_in_values_and_all_gradients(direction):
    found, expected = arguments(direction), arguments(direction)
    out, judge = triangle_multiplication(*found), reference.triangle_multiplication(*expected)
    torch.testing.assert_close(out, judge, atol=1e-5, rtol=1e-5)
    out.square().sum().backward()
    judge.square().sum().backward()
    assert len(leaves(found)) == 9
    for leaf, other in zip(leaves(found), leaves(expected), strict=True):
        torch.testing.assert_close(leaf.grad, other.grad, atol=1e-4, rtol=1e-4)


@both_directions
@pytest.mark.usefixtures("largest")
def test_absent_edges_reach_nothing_in_values_or_gradients(direction):
    given = arguments(direction)
    edge, mask = given[:2]
    out = triangle_multiplication(*given)
    present = mask.bool()
    other = edge.detach().clone()
    other[~present] = 50.0
    torch.testing.assert_close(triangle_multiplication(other, *given[1:])[present], out[present])
    out[present].square().sum().backward()
    assert (edge.grad[~present] == 0).all()
    assert edge.grad[present].any()


@both_directions
@pytest.mark.usefixtures("largest")
def test_an_absent_example_is_finite_in_values_and_gradients(direction):
    given = arguments(direction)
    given[1] = torch.zeros(B, N, N)
    out = triangle_multiplication(*given)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in leaves(given))


def test_incoming_is_outgoing_on_transposed_edges_up_to_the_gate():
    """ki, kj of an edge are ik, jk of the transposed one; only the gate and the place of the result differ."""
    outgoing, incoming = arguments("outgoing"), arguments("incoming")
    outgoing[-1] = incoming[-1] = torch.zeros(C, C)  # gates half open whatever the edge
    outgoing[0], outgoing[1] = incoming[0].transpose(1, 2), incoming[1].mT
    torch.testing.assert_close(triangle_multiplication(*outgoing), triangle_multiplication(*incoming))


@both_directions
def test_memory_is_less_than_half_and_grows_with_the_square_of_the_length(direction, monkeypatch):
    monkeypatch.setattr(chunked, "LARGEST", 1)
    used = {length: peak(triangle_multiplication, *arguments(direction, length, size=1)) for length in (16, 32, 64)}
    assert used[64] < 4.1 * used[32] < 4.1 * 4.1 * used[16]
    assert used[64] < peak(reference.triangle_multiplication, *arguments(direction, 64, size=1)) / 2


def test_short_proteins_are_done_in_one_go():
    assert 128**2 * 128 <= chunked.LARGEST < 256**2 * 128
