"""Geometric attention: in chunks against the reference in double, and the reference against geometry."""

import pytest
import torch

from app.ops.geometric_attention import chunked, geometric_attention, reference
from app.types import Frames
from tests.factories import generator, random_rotations
from tests.memory import LargestTensor

B, N, H = 2, 7, 3


def arguments(length: int = N, missing: int = 0, shift: float = 0.0) -> dict[str, torch.Tensor]:
    """shift: how far from the origin, nanometre."""
    source = generator()

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(B, length, *shape, generator=source)

    mask = torch.ones(B, length)
    mask[1, length - missing :] = 0
    return {
        "q_rotation": normal(H, 3), "k_rotation": normal(H, 3), "q_distance": normal(H, 3), "k_distance": normal(H, 3),
        "v": normal(H, 3),
        "rotation_weight": torch.rand(H, generator=source) + 0.5,
        "distance_weight": torch.rand(H, generator=source) + 0.5,
        "rotmats": random_rotations(B, length), "trans": normal(3) + shift * torch.tensor([0.6, 0.0, -0.8]),
        "node_mask": mask,
    }  # fmt: skip


def run(function, a: dict[str, torch.Tensor]) -> torch.Tensor:
    rest = {name: value for name, value in a.items() if name not in ("rotmats", "trans")}
    return function(**rest, frames=Frames(a["rotmats"], a["trans"]))


def value_and_gradients(function, a: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32):
    leaves = {name: x.detach().to(dtype, copy=True).requires_grad_(name != "node_mask") for name, x in a.items()}
    out = run(function, leaves)
    (out * torch.randn(out.shape, generator=generator(3))).sum().backward()
    return {"value": out} | {f"gradient of {name}": x.grad for name, x in leaves.items() if x.requires_grad}


def close(found: dict, expected: dict, **tolerance):
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value.double(), **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("missing", [0, 3, N], ids="missing={}".format)
@pytest.mark.parametrize("shift", [0.0, 10.0, 1000.0], ids="shift={}".format)
@pytest.mark.parametrize("queries", [1, 3, 64], ids="queries={}".format)
def test_values_and_gradients_are_those_of_the_reference(missing, shift, queries, monkeypatch):
    monkeypatch.setattr(chunked, "QUERIES", queries)
    a = arguments(missing=missing, shift=shift)
    found = value_and_gradients(geometric_attention, a)
    close(found, value_and_gradients(reference.geometric_attention, a, torch.float64), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("function", [geometric_attention, reference.geometric_attention])
def test_absent_residues_get_nothing_and_give_nothing(function):
    for name, value in value_and_gradients(function, arguments(missing=3)).items():
        if "weight" not in name:
            assert (value[1, -3:] == 0).all(), name
            assert value[1, :-3].any(), name


@pytest.mark.parametrize("function", [geometric_attention, reference.geometric_attention])
def test_gradients_are_finite_where_distances_are_zero(function):
    a = arguments()
    for name in ("q_distance", "k_distance", "trans"):
        a[name] = torch.zeros_like(a[name])
    found = value_and_gradients(function, a)
    assert all(value.isfinite().all() for value in found.values())
    assert found["gradient of v"].any()


def test_without_recomputation_the_result_is_the_same(monkeypatch):
    monkeypatch.setattr(chunked, "QUERIES", 2)
    leaves = {name: value.requires_grad_(name != "node_mask") for name, value in arguments().items()}
    expected = run(geometric_attention, leaves)
    assert expected.requires_grad
    with torch.no_grad():
        assert torch.equal(run(geometric_attention, leaves), expected)


def test_memory_goes_with_the_length():
    largest = []
    for length in (64, 256, 512):
        with LargestTensor() as seen:
            value_and_gradients(geometric_attention, arguments(length))
        largest.append(seen.numel / length)
    assert largest[0] == largest[1] == largest[2]


def test_what_the_backward_pass_keeps_goes_with_the_length():
    """Weights of all chunks together would be N x N: they are not kept but made again."""

    def kept(length: int) -> int:
        stored: dict[int, int] = {}  # views of one tensor count once

        def count(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
            return tensor

        leaves = {name: value.requires_grad_(name != "node_mask") for name, value in arguments(length).items()}
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            out = run(geometric_attention, leaves)
        assert out.requires_grad
        return sum(stored.values())

    assert kept(512) / kept(256) < 2.05
