"""Factorised point attention: the widened dot product against the displacements of the reference, in double."""

import pytest
import torch

from app.ops import factorised_attention as op
from app.ops.factorised_attention import factorised_attention, reference
from app.ops.invariant_point_attention import reference as dense
from app.types import Frames
from tests.factories import generator, random_rotations
from tests.memory import LargestTensor

B, N, H, C, P, PV, R, D = 2, 7, 3, 4, 2, 3, 2, 5


def arguments(length: int = N, missing: int = 0, shift: float = 0.0) -> dict[str, torch.Tensor]:
    """All but the frames as the operation names them; shift: how far from the origin, nanometre."""
    source = generator()

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(B, length, *shape, generator=source)

    mask = torch.ones(B, length)
    mask[1, length - missing :] = 0
    return {
        "q": normal(H, C), "k": normal(H, C), "v": normal(H, C),
        "q_points": normal(H, P, 3), "k_points": normal(H, P, 3), "v_points": normal(H, PV, 3),
        "bias_left": normal(H, R), "bias_right": normal(H, R), "value_left": normal(R, D), "value_right": normal(R, D),
        "point_weight": torch.rand(H, generator=source) + 0.5,
        "rotmats": random_rotations(B, length), "trans": normal(3) + shift * torch.tensor([0.6, 0.0, -0.8]),
        "node_mask": mask,
    }  # fmt: skip


def run(function, a: dict[str, torch.Tensor]):
    rest = {name: value for name, value in a.items() if name not in ("rotmats", "trans")}
    return function(**rest, frames=Frames(a["rotmats"], a["trans"]))


def values_and_gradients(function, a: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    leaves = {name: x.detach().to(dtype, copy=True).requires_grad_(name != "node_mask") for name, x in a.items()}
    out = run(function, leaves)
    source = generator(3)
    sum((part * torch.randn(part.shape, generator=source)).sum() for part in out).backward()
    found = dict(zip(("scalars", "points", "pair_values"), out, strict=True))
    return found | {f"gradient of {name}": x.grad for name, x in leaves.items() if x.requires_grad}


@pytest.mark.parametrize("missing", [0, 3, N], ids="missing={}".format)
@pytest.mark.parametrize("shift", [0.0, 10.0, 100.0], ids="shift={}".format)
def test_values_and_gradients_are_those_of_the_reference(missing, shift):
    a = arguments(missing=missing, shift=shift)
    found = values_and_gradients(factorised_attention, a, torch.float32)
    expected = values_and_gradients(reference.factorised_attention, a, torch.float64)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, atol=2e-5, rtol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("function", [factorised_attention, reference.factorised_attention])
def test_it_is_dense_point_attention_over_edges_that_hold_the_products(function):
    a = arguments(missing=2)
    bias = torch.einsum("bihr,bjhr->bijh", a["bias_left"], a["bias_right"])
    values = torch.einsum("bird,bjrd->bijd", a["value_left"], a["value_right"])
    eye = torch.eye(H + D)
    expected = dense.invariant_point_attention(
        *(a[name] for name in ("q", "k", "v", "q_points", "k_points", "v_points")),
        torch.cat([bias, values], -1),
        *(eye[:H], torch.zeros(H), eye[H:], torch.zeros(D)),
        a["point_weight"],
        Frames(a["rotmats"], a["trans"]),
        a["node_mask"],
    )
    present = a["node_mask"].bool()
    for f, e in zip(run(function, a), expected, strict=True):
        torch.testing.assert_close(f[present], e[present], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("function", [factorised_attention, reference.factorised_attention])
def test_absent_residues_get_nothing_and_give_nothing(function):
    a = values_and_gradients(function, arguments(missing=3), torch.float32)
    for name, value in a.items():
        if name != "gradient of point_weight":
            assert (value[1, -3:] == 0).all(), name
            assert value[1, :-3].any(), name


def test_what_absent_residues_hold_is_not_seen():
    a = arguments(missing=3)
    other = {name: value.clone() for name, value in a.items()}
    for name, value in other.items():
        if name not in ("node_mask", "point_weight", "rotmats"):
            value[1, -3:] = 50.0
    for f, e in zip(run(factorised_attention, other), run(factorised_attention, a), strict=True):
        torch.testing.assert_close(f, e, atol=1e-6, rtol=1e-6)


def test_a_fused_kernel_runs_forward_and_backward():
    """On a CPU, torch takes it only for equal widths and without a mask; the way without it makes N x N weights."""
    with LargestTensor() as seen:
        values_and_gradients(op.factorised_attention, arguments(missing=2), torch.float32)
    kernel = "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert {kernel, f"{kernel}_backward"} <= seen.operators
    assert "aten::_softmax" not in seen.operators


def test_memory_goes_with_the_length():
    largest = []
    for length in (64, 256, 512):
        with LargestTensor() as seen:
            values_and_gradients(factorised_attention, arguments(length), torch.float32)
        largest.append(seen.numel / length)
    assert largest[0] == largest[1] == largest[2]
