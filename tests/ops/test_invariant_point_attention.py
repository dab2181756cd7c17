"""Invariant point attention against AlphaFold 2's algorithm 22 written out in loops, in double precision."""

import math
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from app.devices import NVIDIA
from app.ops.backend import Call
from app.ops.check import BOUNDS, cast, compare, run
from app.ops.invariant_point_attention import expanded, invariant_point_attention, limit, reference
from app.types import Frames
from tests.conftest import HAS_GPU
from tests.factories import generator, random_rotations
from tests.memory import Memory

B, N, H, C, P, PV, CZ, CD = 2, 5, 3, 4, 2, 3, 6, 2

DEVICE = {"triton": NVIDIA if HAS_GPU else "cpu"}  # on the CPU under triton's interpreter
TRITON = pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="there is no triton here"))
every_backend = pytest.mark.parametrize("backend", ["reference", "torch", TRITON])


pytestmark = pytest.mark.usefixtures("large_tiles")


def arguments(seed: int = 0) -> dict:
    source = generator(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source)

    return {
        "q": normal(B, N, H, C), "k": normal(B, N, H, C), "v": normal(B, N, H, C),
        "q_points": normal(B, N, H, P, 3), "k_points": normal(B, N, H, P, 3), "v_points": normal(B, N, H, PV, 3),
        "edge": normal(B, N, N, CZ), "bias_weight": normal(H, CZ), "bias_bias": normal(H),
        "down_weight": normal(CD, CZ), "down_bias": normal(CD), "point_weight": normal(H).abs() + 0.1,
        "frames": Frames(random_rotations(B, N, seed=seed), normal(B, N, 3)),
        "node_mask": torch.ones(B, N),
    }  # fmt: skip


def call(backend: str, a: dict, **more) -> list[torch.Tensor]:
    given = cast(a, torch.device(DEVICE.get(backend, "cpu")), torch.float32)
    return [part.cpu() for part in invariant_point_attention.function(backend)(**given, **more)]


def results(backend: str, a: dict):
    """Outputs and gradients, in float32."""
    given = cast(a, torch.device(DEVICE.get(backend, "cpu")), torch.float32)
    return run(invariant_point_attention.function(backend), given)


def algorithm_22(a: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lines 7 to 11, every index a loop. Narrowing the pair values (`down`) is Multiflow's addition."""
    a = {key: value.double() if isinstance(value, torch.Tensor) else value for key, value in a.items()}
    rotation, shift = a["frames"].rotmats.double(), a["frames"].trans.double()
    w_c, w_l = math.sqrt(2 / (9 * P)), math.sqrt(1 / 3)
    scalars = torch.zeros(B, N, H, C, dtype=torch.float64)
    points = torch.zeros(B, N, H, PV, 3, dtype=torch.float64)
    pair_values = torch.zeros(B, N, H, CD, dtype=torch.float64)
    for b in range(B):

        def out(i, point, b=b):
            return rotation[b, i] @ point + shift[b, i]

        for i in range(N):
            for h in range(H):
                logit = torch.zeros(N, dtype=torch.float64)
                for j in range(N):
                    product = sum(a["q"][b, i, h, c] * a["k"][b, j, h, c] for c in range(C)) / math.sqrt(C)
                    bias = sum(a["bias_weight"][h, z] * a["edge"][b, i, j, z] for z in range(CZ)) + a["bias_bias"][h]
                    squared = 0.0
                    for p in range(P):
                        apart = out(i, a["q_points"][b, i, h, p]) - out(j, a["k_points"][b, j, h, p])
                        squared += (apart * apart).sum()
                    logit[j] = w_l * (product + bias - a["point_weight"][h] * w_c / 2 * squared)
                    logit[j] -= 1e5 * (1 - a["node_mask"][b, i] * a["node_mask"][b, j])
                weight = torch.exp(logit - logit.max())
                weight /= weight.sum()
                for j in range(N):
                    scalars[b, i, h] += weight[j] * a["v"][b, j, h]
                    narrow = a["down_weight"] @ a["edge"][b, i, j] + a["down_bias"]
                    pair_values[b, i, h] += weight[j] * narrow
                for p in range(PV):
                    mean = sum(weight[j] * out(j, a["v_points"][b, j, h, p]) for j in range(N))
                    points[b, i, h, p] = rotation[b, i].T @ (mean - shift[b, i])
    return scalars, points, pair_values


def close(found, expected, **tolerance):
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f.double(), e.double(), **{"atol": 1e-5, "rtol": 1e-5} | tolerance)


@every_backend
@pytest.mark.parametrize("missing", [0, 2])
def test_it_is_algorithm_22(missing, backend):
    a = arguments()
    if missing:
        a["node_mask"][1, -missing:] = 0
    present = a["node_mask"].bool()
    found, expected = call(backend, a), algorithm_22(a)
    close([part[present] for part in found], [part[present] for part in expected])
    assert all((part[~present] == 0).all() for part in found)


@every_backend
@pytest.mark.parametrize(("shift", "tolerance"), [(3.0, 1e-4), (50.0, 3e-4)])
def test_a_rigid_motion_of_all_frames_changes_nothing(shift, tolerance, backend):
    """50 nm away, coordinates themselves are known to 4e-6 nm only."""
    a = arguments()
    turn, shift = random_rotations(1, seed=3)[0], shift * torch.tensor([0.8, -0.2, 0.6])
    moved = Frames(turn @ a["frames"].rotmats, a["frames"].trans @ turn.mT + shift)
    close(call(backend, a | {"frames": moved}), call(backend, a), atol=tolerance)


@every_backend
def test_absent_residues_reach_no_other_and_get_nothing_in_values_or_gradients(backend):
    a = arguments()
    a["node_mask"][1, -2:] = 0
    found = results(backend, a)
    assert all((part[1, 3:] == 0).all() for part in found.outputs)
    for key, gradient in found.gradients.items():
        if key in ("bias_weight", "bias_bias", "down_weight", "down_bias", "point_weight"):
            continue
        assert (gradient[1, 3:] == 0).all() and gradient[1, :3].any(), key
        if key == "edge":
            assert (gradient[1, :, 3:] == 0).all()


@every_backend
def test_what_absent_residues_hold_is_not_seen(backend):
    a, other = arguments(), arguments()
    for given in (a, other):
        given["node_mask"][1, -2:] = 0
    for key in ("q", "k", "v", "q_points", "k_points", "v_points", "edge"):
        other[key][1, -2:] = 30.0
    other["edge"][1, :, -2:] = 30.0
    other["frames"].trans[1, -2:] = 1000.0
    close(call(backend, other), call(backend, a), atol=1e-6)


@every_backend
def test_an_example_without_any_residue_gives_zeros_and_zero_gradients(backend):
    a = arguments()
    a["node_mask"][1] = 0
    found = results(backend, a)
    assert all((part[1] == 0).all() and part[0].any() for part in found.outputs)
    of_residues = {
        key: gradient for key, gradient in found.gradients.items() if len(gradient) == B and key != "down_bias"
    }
    assert all(gradient.isfinite().all() for gradient in found.gradients.values())
    assert all((of_residues[key][1] == 0).all() for key in ("q", "v", "k_points", "edge", "frames.trans"))
    nobody = results(backend, a | {"node_mask": torch.zeros(B, N)})
    assert not any(x.any() for x in (*nobody.outputs, *nobody.gradients.values()))


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_dropout_acts_on_request_only(backend):
    a = arguments()
    close(call(backend, a), call(backend, a), atol=0, rtol=0)
    first, second = (call(backend, a, dropout=0.5)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_dropout_sees_the_whole_logits(monkeypatch):
    """What softmax would cancel as well: with the same logits dropped, values and gradients are the reference's."""
    a = arguments()
    a["node_mask"][1, -2:] = 0
    kept = 2.0 * (torch.rand(B, H, N, N, generator=generator(1)) > 0.5)
    monkeypatch.setattr(F, "dropout", lambda x, rate, training=True: x * kept.to(x.dtype) if rate > 0 else x)
    given = cast(a, torch.device("cpu"), torch.float64, all_of_it=True)
    found, expected = (
        run(lambda f=module.invariant_point_attention, **arguments: f(**arguments, dropout=0.5), given)
        for module in (expanded, reference)
    )
    close(found.outputs, expected.outputs, atol=1e-10, rtol=1e-10)
    assert found.gradients["bias_bias"].abs().max() > 1e-3
    close(found.gradients.values(), expected.gradients.values(), atol=1e-9, rtol=1e-9)


WIDTHS = [
    {"num_heads": 1, "width": 8, "num_qk_points": 1, "num_v_points": 1, "c_z": 16},
    {"num_heads": 12, "width": 16, "num_qk_points": 4, "num_v_points": 8, "c_z": 48},
    {"num_heads": 4, "width": 24, "num_qk_points": 5, "num_v_points": 7, "c_z": 64},
]


@pytest.mark.parametrize("shift", [0.0, 50.0], ids="shift={}".format)
@pytest.mark.parametrize("widths", WIDTHS, ids=lambda widths: "-".join(map(str, widths.values())))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["torch", TRITON])
def test_other_widths(backend, dtype, widths, shift):
    """Odd lengths, and more keys than one tile has."""
    example = invariant_point_attention.example(19, seed=2, shift=shift, **widths)
    errors = compare(invariant_point_attention, backend, example, DEVICE.get(backend, "cpu"), dtype)
    assert errors.within(BOUNDS[dtype]), errors


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "heads", "c_z"),
    [(torch.float32, 8, 256), (torch.bfloat16, 16, 256), (torch.float16, 16, 256), (torch.bfloat16, 12, 128)],
    ids=str,
)
def test_the_fused_kernels_fit_at_their_limits(dtype, heads, c_z):
    example = invariant_point_attention.example(65, num_heads=heads, c_z=c_z)
    errors = compare(invariant_point_attention, "triton", example, NVIDIA, dtype)
    assert errors.within(BOUNDS[dtype]), errors


@pytest.mark.parametrize("splits", [1, 2, 5])
@pytest.mark.skipif(find_spec("triton") is None, reason="there is no triton here")
def test_loops_cut_into_parts_give_the_same(splits, monkeypatch):
    from app.ops.invariant_point_attention import fused

    monkeypatch.setattr(fused, "_split", lambda length, step, *_: (step * -(-3 // splits), splits))
    example = invariant_point_attention.example(
        35, seed=2, num_heads=2, width=4, num_qk_points=1, num_v_points=1, c_z=16
    )
    assert compare(invariant_point_attention, "triton", example, DEVICE["triton"], torch.float32).within(1e-5)


@pytest.mark.skipif(find_spec("triton") is None, reason="there is no triton here")
def test_what_kernels_cannot_reach_is_made_dense():
    """Columns in 32 bits, and the inner dimensions together; what is far apart otherwise stays where it is."""
    from app.ops.invariant_point_attention.fused import _rows

    def dense(shape: tuple[int, ...], stride: tuple[int, ...], inner: int = 1) -> bool:
        x = torch.empty_strided(shape, stride, device="meta")
        return _rows(x, inner) is not x

    assert not dense((1, 4, 4, 16), (2**40, 2**34, 2**20, 1))
    assert dense((1, 4, 4, 16), (2**40, 2**34, 2**29, 1))
    assert dense((1, 4, 4, 16), (2**40, 2**34, 2**20, 2))
    assert not dense((1, 4, 4, 5, 3), (2**40, 2**34, 2**20, 3, 1), inner=2)
    assert dense((1, 4, 4, 5, 3), (2**40, 2**34, 2**20, 4, 1), inner=2)


def test_memory_is_that_of_a_few_logits_and_the_gradient_of_the_edges():
    length = 128
    given = cast(invariant_point_attention.example(length), torch.device("cpu"), torch.float32)
    logits, edges = 4 * 8 * length**2, 4 * 128 * length**2  # bytes
    with torch.no_grad(), Memory() as forward:
        expanded.invariant_point_attention(**given)
    assert forward.peak < 5 * logits
    leaves = {key: value.requires_grad_() for key, value in given.items() if key in ("q", "edge")}
    with Memory() as both:
        sum(part.sum() for part in expanded.invariant_point_attention(**given | leaves)).backward()
    assert both.peak < edges + 9 * logits


@pytest.mark.parametrize("backend", ["torch", TRITON])
def test_it_compiles_without_a_break_forward_and_backward(backend):
    a = arguments()
    function = invariant_point_attention.function(backend)
    given = cast(a, torch.device(DEVICE.get(backend, "cpu")), torch.float32)
    compiled = torch.compile(lambda **arguments: function(**arguments), backend="aot_eager", fullgraph=True)
    found, expected = run(compiled, given), run(function, given)
    close(found.outputs, expected.outputs)
    close(found.gradients.values(), expected.gradients.values())


@pytest.mark.parametrize(
    ("widths", "reason"),
    [
        ((8, 16, 128, 8, 12), None),
        ((16, 16, 256, 8, 12), None),
        ((17, 16, 128, 8, 12), "up to 16 heads in bfloat16, not 17"),
        ((8, 16, 120, 8, 12), "a multiple of 16 up to 256 as c_z, not 120"),
        ((8, 16, 272, 8, 12), "a multiple of 16 up to 256 as c_z, not 272"),
        ((8, 32, 128, 12, 4), "not 68"),
    ],
)
def test_the_fused_kernels_say_what_they_cannot_do(widths, reason):
    said = limit(Call(NVIDIA, torch.bfloat16, 64, widths, True))
    assert said is None if reason is None else reason in said


@pytest.mark.parametrize(
    ("dtype", "length", "backward", "first"),
    [
        (torch.bfloat16, 512, True, "triton"),
        (torch.bfloat16, 512, False, "triton"),
        (torch.float32, 512, False, "triton"),
        (torch.float32, 512, True, "torch"),
        (torch.float32, 128, True, "triton"),
    ],
)
def test_auto_tries_first_what_was_measured_to_be_faster(dtype, length, backward, first):
    assert invariant_point_attention.order(Call(NVIDIA, dtype, length, (8, 16, 128, 8, 12), backward))[0] == first
