"""The edge transition, edge by edge; its backends in chunks; its memory. For the rest see test_parity.py."""

import importlib.util

import pytest
import torch

from app.ops import check
from app.ops.edge_transition import chunked, edge_transition, reference, tiles
from tests.conftest import HAS_GPU
from tests.factories import generator
from tests.memory import peak


@pytest.fixture(params=["torch", "triton"])
def backend(request) -> str:
    """The fused kernels run here where Triton's interpreter takes them."""
    if request.param == "triton" and (HAS_GPU or not importlib.util.find_spec("triton")):
        pytest.skip("needs triton, on a machine without a GPU")
    return request.param


def plain(length: int, batch: int = 1, dtype: torch.dtype = torch.float64, c_z: int = 16, width: int = 8) -> dict:
    """Arguments without any structure: units near the kink of their ReLU, masks without pattern."""
    source, hidden = generator(), c_z + 2 * width

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64).to(dtype)

    def layer(out: int) -> tuple[torch.Tensor, torch.Tensor]:
        return normal(out, hidden) * hidden**-0.5, normal(out)

    return {
        "edge": normal(batch, length, length, c_z), "node": normal(batch, length, width), "first": layer(hidden),
        "second": layer(hidden), "last": layer(c_z), "norm": (normal(c_z), normal(c_z)),
        "mask": (torch.rand(batch, length, length, generator=source) > 0.3).to(dtype),
    }  # fmt: skip


def test_it_is_an_mlp_with_a_residual_over_the_edge_and_its_two_nodes():
    given = plain(4, batch=2)
    edge, node, first, second, last, norm, mask = given.values()
    found = edge_transition(**given)
    for b in range(2):
        for i in range(4):
            for j in range(4):
                x = torch.cat([edge[b, i, j], node[b, i], node[b, j]])
                hidden = (first[0] @ x + first[1]).clamp(min=0)
                hidden = (second[0] @ hidden + second[1]).clamp(min=0)
                y = last[0] @ (hidden + x) + last[1]
                y = (y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt() * norm[0] + norm[1]
                torch.testing.assert_close(found[b, i, j], y * mask[b, i, j])


# Several examples in a chunk, one row, rows of one example with a rest, everything in one
@pytest.mark.parametrize(("length", "batch", "pairs"), [(3, 5, 20), (7, 2, 1), (7, 2, 21), (7, 2, 2**20), (1, 3, 2)])
def test_chunks_of_any_size_give_the_reference_in_values_and_all_gradients(backend, length, batch, pairs, monkeypatch):
    module, constant = {"torch": ("chunked", "PAIRS_IN_CACHE"), "triton": ("tiles", "PAIRS_AT_ONCE")}[backend]
    monkeypatch.setattr(f"app.ops.edge_transition.{module}.{constant}", pairs)
    monkeypatch.setattr("app.ops.edge_transition.tiles.MOST_CHUNKS", 10**6)
    errors = check.compare(edge_transition, backend, plain(length, batch), "cpu", torch.float32)
    assert errors.within(check.BOUNDS[torch.float32]), errors


def test_strided_edges_have_the_same_gradients(backend):
    given = plain(5, 2, torch.float32)
    turned = {**given, "edge": given["edge"].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)}
    assert not turned["edge"].is_contiguous()
    function = edge_transition.function(backend)
    found, expected = check.run(function, turned), check.run(function, given)
    torch.testing.assert_close(found.outputs, expected.outputs)
    torch.testing.assert_close(found.gradients, expected.gradients)


def test_whatever_is_absent_leaves_no_trace_in_the_weights_gradients(backend):
    given = plain(6, dtype=torch.float32)
    given["mask"][:, 2] = 0
    other = {**given, "edge": given["edge"].clone()}
    other["edge"][:, 2] = 50.0
    found, expected = (check.run(edge_transition.function(backend), x).gradients for x in (other, given))
    assert (found["edge"][:, 2] == 0).all()
    torch.testing.assert_close(found["first.0"], expected["first.0"])


@pytest.mark.parametrize("name", ["reference", "torch"])
def test_under_autocast_the_edges_stay_in_its_type(name):
    given = plain(5, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = edge_transition.function(name)(**given)
    assert found.dtype == torch.bfloat16
    expected = reference.edge_transition(**given)
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.05)


def test_weights_in_use_only_in_part_get_zeros_elsewhere_and_inputs_without_gradients_none():
    given = plain(3)
    given["last"][0].requires_grad_()
    edge_transition.function("torch")(**given).sum().backward()
    assert given["last"][0].grad.shape == given["last"][0].shape and given["edge"].grad is None


def test_memory_beside_edges_and_result_does_not_grow_with_the_length(monkeypatch):
    monkeypatch.setattr(chunked, "PAIRS_IN_CACHE", 64)
    chunked_function, plain_function = (edge_transition.function(name) for name in ("torch", "reference"))

    def used(function, length: int, backward: bool) -> int:
        given = plain(length, dtype=torch.float32)
        return peak(lambda edge: function(**{**given, "edge": edge}), given["edge"].requires_grad_(), backward=backward)

    result = 4 * 16 * 64**2
    assert used(chunked_function, 64, backward=False) < 1.3 * result
    assert used(chunked_function, 64, backward=False) < used(plain_function, 64, backward=False) / 4


def test_more_pairs_make_larger_chunks_not_more_of_them():
    assert tiles.pairs_at_once(1000) == tiles.pairs_at_once(4 * tiles.PAIRS_AT_ONCE) == tiles.PAIRS_AT_ONCE
    assert tiles.pairs_at_once(8 * 384**2) == 2 * 384**2
