"""Superposition against scipy, over masks, with degenerate input."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from app.geometry.superpose import centre, kabsch, masked_mean, superpose
from tests.factories import generator, random_rotations


def clouds(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=generator(seed), dtype=torch.float64)


def test_a_rigid_motion_is_undone():
    mobile = clouds(8, 20)
    target = mobile @ random_rotations(8, dtype=torch.float64).mT + clouds(8, 1, seed=1)
    torch.testing.assert_close(superpose(mobile, target, torch.ones(8, 20)), target)


def test_the_rotation_is_scipys():
    mobile, target = clouds(10, 12), clouds(10, 12, seed=1)
    rotation, mobile_centre, target_centre = kabsch(mobile, target, torch.ones(10, 12))
    for index in range(10):
        expected, _ = Rotation.align_vectors(target[index] - target_centre[index], mobile[index] - mobile_centre[index])
        torch.testing.assert_close(rotation[index], torch.from_numpy(expected.as_matrix()))


def test_mirror_images_get_a_proper_rotation():
    mobile = clouds(5, 20)
    rotation, _, _ = kabsch(mobile, mobile * torch.tensor([1.0, 1.0, -1.0]), torch.ones(5, 20))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(5, dtype=torch.float64))


def test_masked_points_do_not_count_but_move_along():
    mobile, target, mask = clouds(4, 10), clouds(4, 10, seed=1), torch.ones(4, 10)
    mask[:, 7:] = 0
    moved = superpose(mobile, target, mask)
    torch.testing.assert_close(moved[:, :7], superpose(mobile[:, :7], target[:, :7], mask[:, :7]))
    rubbish = superpose(torch.where(mask[..., None] > 0, mobile, 1e3), target, mask)
    torch.testing.assert_close(rubbish[:, :7], moved[:, :7])
    before, after = (torch.cdist(x, x) for x in (mobile, moved))
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize(
    "points", [torch.zeros(1, 6, 3), torch.ones(1, 6, 3), torch.arange(6.0)[None, :, None] * torch.ones(3)]
)
def test_degenerate_input_is_finite(points):
    for other in (points, clouds(1, 6).float()):
        assert superpose(points, other, torch.ones(1, 6)).isfinite().all()
        assert superpose(other, points, torch.zeros(1, 6)).isfinite().all()


def test_mean_and_centre_over_a_mask():
    points, mask = clouds(2, 5), torch.tensor([[1.0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    torch.testing.assert_close(masked_mean(points, mask)[0, 0], points[0, [0, 1, 3]].mean(0))
    assert torch.equal(masked_mean(points, mask)[1], torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(masked_mean(centre(points, mask), mask), torch.zeros(2, 1, 3, dtype=torch.float64))
    torch.testing.assert_close(torch.cdist(centre(points, mask), centre(points, mask)), torch.cdist(points, points))
