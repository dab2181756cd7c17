"""SO(3): identities, accuracy against scipy in float64, gradients where the formulas are singular."""

import itertools
import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from app.devices import NVIDIA
from app.geometry import rotations
from tests.factories import generator, random_rotations

ANGLES = [0.0, 1e-8, 1e-6, 9e-5, 1.1e-4, 1e-3, 0.1, 1.0, 2.0, 3.0, 3.13, math.pi - 1e-3, math.pi - 1e-6]


def axes(count: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator(seed), dtype=dtype), dim=-1)


def rotvecs(angle: float, count: int = 64) -> torch.Tensor:
    return angle * axes(count)


def half_turns() -> torch.Tensor:
    """Rotations by pi exactly, the coordinate axes' among them, [N, 3, 3] float64."""
    axis = torch.cat([torch.eye(3, dtype=torch.float64), axes(20)])
    return 2 * axis[:, :, None] * axis[:, None] - torch.eye(3, dtype=torch.float64)


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angle between rotations, exact for small ones."""
    return 2 * torch.asin(((a - b).norm(dim=(-1, -2)) / math.sqrt(8)).clamp(max=1))


@pytest.mark.parametrize("angle", ANGLES)
def test_exp_and_log_agree_with_scipy_in_float32(angle):
    vector = rotvecs(angle)
    matrix = torch.from_numpy(Rotation.from_rotvec(vector.numpy()).as_matrix())
    torch.testing.assert_close(rotations.exp(vector.float()).double(), matrix, atol=5e-7, rtol=0)
    # Rounding the matrix to float32 alone turns it by about 1e-7.
    back = rotations.log(matrix.float()).double()
    if angle < math.pi - 1e-4:
        torch.testing.assert_close(back, vector, atol=1e-6, rtol=0)
    torch.testing.assert_close(rotations.exp(back), matrix, atol=1e-6, rtol=0)


@pytest.mark.parametrize("angle", ANGLES)
def test_log_inverts_exp_in_float64(angle):
    vector = rotvecs(angle)
    torch.testing.assert_close(rotations.log(rotations.exp(vector)), vector, atol=1e-9, rtol=1e-9)


def test_log_of_large_angles_is_the_short_way_round():
    vector = rotations.log(rotations.exp(rotvecs(math.pi + 0.5)))
    torch.testing.assert_close(vector, -rotvecs(math.pi - 0.5))


def test_log_at_half_turns_is_an_axis_times_pi():
    vector = rotations.log(half_turns())
    torch.testing.assert_close(vector.norm(dim=-1), torch.full((23,), math.pi, dtype=torch.float64))
    torch.testing.assert_close(rotations.exp(vector), half_turns(), atol=1e-7, rtol=0)


def test_small_and_large_branches_meet():
    for angle in (0.99999e-4, 1.00001e-4):
        vector = rotvecs(angle)
        exact = torch.from_numpy(Rotation.from_rotvec(vector.numpy()).as_matrix())
        torch.testing.assert_close(rotations.exp(vector), exact, atol=1e-15, rtol=0)
        torch.testing.assert_close(rotations.log(exact), vector, atol=1e-15, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, 3.0, math.pi - 1e-4])
def test_gradients_of_exp_are_those_of_finite_differences(angle):
    torch.autograd.gradcheck(rotations.exp, rotvecs(angle, 4).requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("angle", [1e-7, 1e-3, 1.0, 3.0, math.pi - 1e-2])
def test_gradients_of_log_along_the_group_are_those_of_finite_differences(angle):
    base = rotations.exp(rotvecs(angle, 4))

    def along(tangent):
        return rotations.log(base @ rotations.exp(tangent))

    torch.autograd.gradcheck(along, torch.zeros(4, 3, dtype=torch.float64, requires_grad=True), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("half_turn", ["exact", "positive"])
def test_gradients_are_finite_at_the_identity_and_at_half_turns(dtype, half_turn):
    eye = torch.eye(3, dtype=dtype).expand(4, 3, 3)
    for matrix in (eye, half_turns().to(dtype)):
        leaf = matrix.clone().requires_grad_()
        rotations.log(leaf, half_turn).sum().backward()
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().max() > 0
        start, end = matrix.clone().requires_grad_(), matrix.clone().requires_grad_()
        rotations.geodesic(torch.tensor(0.3, dtype=dtype), start, end, half_turn).square().sum().backward()
        assert start.grad.isfinite().all()
        assert end.grad.isfinite().all()
    vector = torch.zeros(3, dtype=dtype, requires_grad=True)
    rotations.exp(vector).sum().backward()
    assert vector.grad.isfinite().all()


@pytest.mark.parametrize("angle", ANGLES)
def test_quaternions_agree_with_scipy_and_come_back(angle):
    reference = Rotation.from_rotvec(rotvecs(angle).numpy())
    matrix = torch.from_numpy(reference.as_matrix())
    quaternion = rotations.to_quaternion(matrix)
    expected = torch.from_numpy(reference.as_quat(canonical=True, scalar_first=True))
    torch.testing.assert_close(quaternion, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(rotations.from_quaternion(quaternion), matrix, atol=1e-12, rtol=0)


def test_quaternions_of_half_turns_and_of_any_norm_and_sign():
    quaternion = rotations.to_quaternion(half_turns().float())
    torch.testing.assert_close(rotations.from_quaternion(quaternion).double(), half_turns(), atol=1e-6, rtol=0)
    quaternion = torch.randn(50, 4, generator=generator())
    scaled = quaternion * torch.linspace(-5, 7, 50)[:, None]
    torch.testing.assert_close(rotations.from_quaternion(scaled), rotations.from_quaternion(quaternion))
    assert (rotations.to_quaternion(rotations.from_quaternion(quaternion))[:, 0] >= 0).all()


def test_results_are_rotations():
    for matrix in (rotations.exp(3 * axes(100)), rotations.from_gaussian_quaternions(torch.randn(100, 4).double())):
        torch.testing.assert_close(matrix.mT @ matrix, torch.eye(3, dtype=torch.float64).expand(100, 3, 3))
        torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(100, dtype=torch.float64))


def test_hat_is_the_cross_product():
    u, v = axes(10, 1), axes(10, 2)
    torch.testing.assert_close((rotations.hat(u) @ v[..., None]).squeeze(-1), torch.linalg.cross(u, v))


def test_geodesic_has_its_endpoints_constant_speed_and_the_shortest_length():
    start, end = random_rotations(50, seed=1, dtype=torch.float64), random_rotations(50, seed=2, dtype=torch.float64)
    points = [rotations.geodesic(t, start, end) for t in torch.linspace(0, 1, 5, dtype=torch.float64)]
    torch.testing.assert_close(points[0], start)
    torch.testing.assert_close(points[-1], end)
    angle = rotations.rotation_vector_field(start, end).norm(dim=-1)
    assert (angle <= math.pi + 1e-9).all()
    for a, b in itertools.pairwise(points):
        torch.testing.assert_close(distance(a, b), angle / 4)


def test_geodesic_is_equivariant_on_both_sides():
    start, end, turn = (random_rotations(20, seed=seed, dtype=torch.float64) for seed in (1, 2, 3))
    t = torch.linspace(0, 1.5, 20, dtype=torch.float64)
    path = rotations.geodesic(t, start, end)
    torch.testing.assert_close(rotations.geodesic(t, turn @ start, turn @ end), turn @ path)
    torch.testing.assert_close(rotations.geodesic(t, start @ turn, end @ turn), path @ turn)


def test_the_vector_field_reaches_the_end_in_unit_time():
    start, end = random_rotations(20, seed=1, dtype=torch.float64), random_rotations(20, seed=2, dtype=torch.float64)
    field = rotations.rotation_vector_field(start, end)
    torch.testing.assert_close(start @ rotations.exp(field), end)


def test_the_positive_half_turn_differs_only_within_its_window():
    for angle in (0.5, 3.0, math.pi - 0.011):
        matrix = rotations.exp(rotvecs(angle))
        torch.testing.assert_close(rotations.log(matrix, "positive"), rotations.log(matrix), atol=0, rtol=0)
    inside = rotations.exp(rotvecs(math.pi - 0.005))
    vector = rotations.log(inside, "positive")
    largest = vector.gather(-1, vector.abs().argmax(-1, keepdim=True))
    assert (largest > 0).all()
    assert not torch.allclose(vector, rotations.log(inside))
    torch.testing.assert_close(vector.abs(), rotations.log(inside).abs())


def test_uniform_rotations_are_haar():
    matrix = rotations.from_gaussian_quaternions(torch.randn(40_000, 4, generator=generator()))
    # Of a Haar matrix every entry has mean 0 and variance 1/3, and entries are uncorrelated.
    entries = matrix.flatten(-2)
    assert entries.mean(0).abs().max() < 0.015
    torch.testing.assert_close(entries.T @ entries / len(entries), torch.eye(9) / 3, atol=0.01, rtol=0)
    angle = rotations.log(matrix).norm(dim=-1)
    expected = [(x - math.sin(x)) / math.pi for x in (0.5, 1.0, 2.0, 3.0)]
    found = [(angle < x).float().mean().item() for x in (0.5, 1.0, 2.0, 3.0)]
    assert found == pytest.approx(expected, abs=0.01)


def test_identity():
    assert torch.equal(rotations.identity(2, 3), torch.eye(3).expand(2, 3, 3, 3))
    rotations.identity(2)[0].zero_()  # a tensor of its own, not a view of one matrix
    assert rotations.identity().shape == (3, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_given_is_the_dtype_returned(dtype):
    matrix = random_rotations(3, dtype=dtype)
    for result in (
        rotations.log(matrix),
        rotations.exp(rotations.log(matrix, "positive")),
        rotations.from_quaternion(rotations.to_quaternion(matrix)),
        rotations.geodesic(torch.tensor(0.5, dtype=dtype), matrix, matrix),
    ):
        assert result.dtype == dtype


@pytest.mark.gpu
def test_products_are_float32_where_a_librarys_may_be_less_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    first, second = (random_rotations(4096, seed=seed, dtype=torch.float64) for seed in (1, 2))
    found = rotations.product(first.float().to(NVIDIA), second.float().to(NVIDIA))
    assert (found.double().cpu() - first @ second).abs().max() < 1e-6
