"""Rigid frames."""

import torch

from app.geometry import frames as frame
from app.geometry import rotations
from app.geometry.units import to_angstrom, to_nanometre
from app.types import Frames
from tests.factories import generator, random_rotations


def some_frames(*shape: int, seed: int = 0) -> Frames:
    trans = torch.randn(*shape, 3, generator=generator(seed), dtype=torch.float64)
    return Frames(random_rotations(*shape, seed=seed, dtype=torch.float64), trans)


def points(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=generator(seed), dtype=torch.float64)


def test_frames_from_backbone_put_the_atoms_where_the_definition_says():
    n, ca, c = points(3, 50)
    found = frame.frames_from_backbone(n, ca, c)
    local = frame.apply_inverse(found, torch.stack([n, ca, c], dim=-2))
    to_n, to_ca, to_c = local.unbind(-2)
    zero = torch.zeros(50, dtype=torch.float64)
    torch.testing.assert_close(to_ca, torch.zeros_like(to_ca))
    torch.testing.assert_close(to_c[:, 1:], torch.zeros_like(to_c[:, 1:]))
    torch.testing.assert_close(to_n[:, 2], zero)
    assert (to_c[:, 0] > 0).all()
    assert (to_n[:, 1] > 0).all()
    torch.testing.assert_close(torch.linalg.det(found.rotmats), torch.ones_like(zero))


def test_frames_from_backbone_move_with_the_atoms():
    atoms, turn, shift = points(3, 50), random_rotations(1, seed=5, dtype=torch.float64)[0], points(seed=6)
    before = frame.frames_from_backbone(*atoms)
    after = frame.frames_from_backbone(*(atoms @ turn.mT + shift))
    torch.testing.assert_close(after.rotmats, turn @ before.rotmats)
    torch.testing.assert_close(after.trans, before.trans @ turn.mT + shift)


def test_apply_is_rotation_then_shift_and_apply_inverse_undoes_it():
    frames, local = some_frames(2, 5), points(2, 5, 4)
    there = frame.apply(frames, local)
    one = frames.rotmats[1, 3] @ local[1, 3, 2] + frames.trans[1, 3]
    torch.testing.assert_close(there[1, 3, 2], one)
    torch.testing.assert_close(frame.apply_inverse(frames, there), local)


def test_update_composes_in_the_local_frame_and_only_where_the_mask_says():
    frames, step = some_frames(2, 5), torch.randn(2, 5, 6, dtype=torch.float64)
    mask = torch.ones(2, 5, dtype=torch.float64)
    mask[0, 2] = 0
    after = frame.update(frames, step, mask)
    b, c, d = step[1, 3, :3]
    turn = rotations.from_quaternion(torch.stack([torch.ones_like(b), b, c, d]))
    torch.testing.assert_close(after.rotmats[1, 3], frames.rotmats[1, 3] @ turn)
    torch.testing.assert_close(after.trans[1, 3], frames.trans[1, 3] + frames.rotmats[1, 3] @ step[1, 3, 3:])
    assert torch.equal(after.rotmats[0, 2], frames.rotmats[0, 2])
    assert torch.equal(after.trans[0, 2], frames.trans[0, 2])


def test_update_does_not_depend_on_the_global_frame():
    frames, step, mask = some_frames(5), torch.randn(5, 6, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    turn, shift = random_rotations(1, seed=5, dtype=torch.float64)[0], points(seed=6)
    after = frame.update(frames, step, mask)
    moved = frame.update(Frames(turn @ frames.rotmats, frames.trans @ turn.mT + shift), step, mask)
    torch.testing.assert_close(moved.rotmats, turn @ after.rotmats)
    torch.testing.assert_close(moved.trans, after.trans @ turn.mT + shift)


def test_units():
    frames = some_frames(4)
    assert torch.equal(to_nanometre(frames).rotmats, frames.rotmats)
    torch.testing.assert_close(to_nanometre(frames).trans, frames.trans / 10)
    torch.testing.assert_close(to_angstrom(to_nanometre(frames)).trans, frames.trans)


def test_centred_frames_have_their_present_mean_at_the_origin_and_move_by_one_shift():
    frames, mask = some_frames(3, 6), torch.ones(3, 6, dtype=torch.float64)
    mask[1, 4:], mask[2] = 0, 0
    found = frame.centred(frames, mask)
    mean = (found.trans * mask[..., None]).sum(1)
    torch.testing.assert_close(mean, torch.zeros_like(mean))
    shift = found.trans - frames.trans
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))
    assert (shift[:2] != 0).all()
    assert torch.equal(found.trans[2], frames.trans[2])  # none is present
    assert torch.equal(found.rotmats, frames.rotmats)
