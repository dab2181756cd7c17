"""The fused edge embedding: under Triton's interpreter, and on a GPU at the widths that it takes."""

import pytest
import torch

from app.devices import NVIDIA
from app.ops import check
from app.ops.edge_embedding import edge_embedding
from tests.conftest import HAS_GPU
from tests.ops.test_edge_embedding import SMALL, without

pytest.importorskip("triton", reason="needs triton")
interpreted = pytest.mark.skipif(HAS_GPU, reason="the interpreter is for machines without a GPU")


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("off", [(), ("trans_sc",), ("chain_idx",), ("trans_sc", "chain_idx", "diffuse_mask")])
def test_the_fused_kernel_under_the_interpreter(off, dtype):
    given = without(edge_embedding.example(7, batch=2, **SMALL), *off)
    errors = check.compare(edge_embedding, "triton", given, "cpu", dtype)
    assert errors.within(check.BOUNDS[dtype]), errors


@interpreted
@pytest.mark.parametrize(("length", "widths"), [(1, {}), (6, {}), (3, {"width": 12, "num_bins": 5, "c_z": 24})])
def test_widths_that_are_no_powers_of_two_and_tiles_that_are_not_full(length, widths):
    errors = check.compare(edge_embedding, "triton", edge_embedding.example(length, 2, **widths), "cpu", torch.float32)
    assert errors.within(check.BOUNDS[torch.float32]), errors


@interpreted
def test_bins_are_open_and_the_last_has_no_end():
    """Distances on every edge, beside it, and far away are where the reference has them, on the number."""
    lower = torch.linspace(1e-3, 20, 6)
    at = torch.cat([torch.zeros(1), lower, lower + 1e-4, lower - 1e-4, torch.tensor([1e4])])
    positions = torch.stack([at, torch.zeros_like(at), torch.zeros_like(at)], -1)[None]
    given = edge_embedding.example(len(at), **SMALL) | {"trans": (positions, positions.flip(1))}
    given = check.cast(given, torch.device("cpu"), torch.float32)
    found, expected = (edge_embedding.function(name)(**given) for name in ("triton", "reference"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@interpreted
def test_compiled_it_stays_one_operator():
    given = check.cast(edge_embedding.example(4, **SMALL), torch.device("cpu"), torch.float32)
    function = edge_embedding.function("triton")
    compiled = torch.compile(lambda **given: function(**given), backend="aot_eager", fullgraph=True)
    node = given["node"].requires_grad_()
    for one in (function(**given), compiled(**given)):
        (gradient,) = torch.autograd.grad(one.square().sum(), node)
        torch.testing.assert_close(one, function(**given))
        torch.testing.assert_close(gradient, torch.autograd.grad(function(**given).square().sum(), node)[0])


@interpreted
def test_a_second_derivative_is_refused_not_taken_for_zero():
    given = check.cast(edge_embedding.example(4, **SMALL), torch.device("cpu"), torch.float32)
    node = given["node"].requires_grad_()
    out = edge_embedding.function("triton")(**given)
    with pytest.raises(RuntimeError, match="no derivative of its backward pass"):
        torch.autograd.grad(out.square().sum(), node, create_graph=True)


@pytest.mark.gpu
def test_under_autocast_the_first_layer_is_float32():
    """What the node and its share of the layer round to, were they in half precision, would show."""
    device = torch.device(NVIDIA)
    given = check.cast(edge_embedding.example(5, **SMALL), device, torch.float32)
    function = edge_embedding.function("triton")
    with torch.autocast(NVIDIA, torch.float16):
        found = function(**given)
    assert found.dtype == torch.float16
    expected = edge_embedding.function("reference")(**check.cast(given, device, torch.float64, True))
    assert (found.double() - expected).abs().max() < 3e-3 * expected.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("widths", [{}, SMALL, {"width": 12, "num_bins": 5, "c_z": 24}, {"c_z": 96}])
@pytest.mark.parametrize("length", [1, 19, 65])
def test_the_fused_kernel_on_a_gpu(length, widths, dtype):
    errors = check.compare(edge_embedding, "triton", edge_embedding.example(length, 2, **widths), NVIDIA, dtype)
    assert errors.within(check.BOUNDS[dtype]), errors


def test_what_is_too_wide_is_refused():
    call = edge_embedding.describe(**edge_embedding.example(3, c_z=192, width=8, num_bins=5))
    assert "at most 128" in edge_embedding.backends["triton"].limit(call)
