"""Invariant point attention against AlphaFold 2's algorithm 22 written out in loops, in double precision."""

import math

import pytest
import torch

from app.ops.invariant_point_attention import invariant_point_attention
from app.types import Frames
from tests.factories import generator, random_rotations

B, N, H, C, P, PV, CZ, CD = 2, 5, 3, 4, 2, 3, 6, 2


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


@pytest.mark.parametrize("missing", [0, 2])
def test_it_is_algorithm_22(missing):
    a = arguments()
    if missing:
        a["node_mask"][1, -missing:] = 0
    present = a["node_mask"].bool()  # in absent rows, logits next to -1e5 have no digits left in float32
    found, expected = invariant_point_attention(**a), algorithm_22(a)
    close([part[present] for part in found], [part[present] for part in expected])


def test_a_rigid_motion_of_all_frames_changes_nothing():
    a = arguments()
    turn, shift = random_rotations(1, seed=3)[0], torch.tensor([3.0, -1.0, 2.0])
    moved = Frames(turn @ a["frames"].rotmats, a["frames"].trans @ turn.mT + shift)
    close(invariant_point_attention(**a | {"frames": moved}), invariant_point_attention(**a), atol=1e-4)


def test_absent_residues_reach_no_other_in_values_or_gradients():
    a = arguments()
    a["node_mask"][1, -2:] = 0
    leaves = {key: a[key].requires_grad_() for key in ("k", "v", "k_points", "v_points", "edge")}
    out = invariant_point_attention(**a)
    sum(part[1, :3].square().sum() + part[0].square().sum() for part in out).backward()
    for key, leaf in leaves.items():
        assert leaf.grad.isfinite().all()
        absent = leaf.grad[1, :3, 3:] if key == "edge" else leaf.grad[1, 3:]
        assert (absent == 0).all(), key
        assert leaf.grad[1, :3].abs().sum() > 0


def test_rows_without_any_residue_are_finite_in_values_and_gradients():
    a = arguments() | {"node_mask": torch.zeros(B, N)}
    leaf = a["q"].requires_grad_()
    out = invariant_point_attention(**a)
    assert all(part.isfinite().all() for part in out)
    sum(part.sum() for part in out).backward()
    assert leaf.grad.isfinite().all()


def test_dropout_acts_on_request_only():
    a = arguments()
    close(invariant_point_attention(**a), invariant_point_attention(**a), atol=0, rtol=0)
    first, second = (invariant_point_attention(**a, dropout=0.5)[0] for _ in range(2))
    assert not torch.equal(first, second)
