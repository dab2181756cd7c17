"""Frames to atoms: bond geometry, planarity, what a break in the chain changes."""

import math

import torch

from app.chem import atoms, backbone
from app.geometry.backbone import backbone_atoms, to_atom37
from app.geometry.frames import apply_inverse, frames_from_backbone
from app.types import Frames
from tests.factories import generator, random_rotations


def chain(size: int = 2, length: int = 9) -> Frames:
    trans = (3.8 * torch.nn.functional.normalize(torch.randn(size, length, 3, generator=generator()), dim=-1)).cumsum(1)
    return Frames(random_rotations(size, length), trans)


def test_atoms_have_the_ideal_local_coordinates():
    frames = chain()
    atom37 = to_atom37(frames)
    local = apply_inverse(frames, atom37[..., [atoms.N, atoms.CA, atoms.C, atoms.CB], :])
    ideal = torch.tensor([backbone.IDEAL_N, backbone.IDEAL_CA, backbone.IDEAL_C, backbone.IDEAL_CB])
    torch.testing.assert_close(local, ideal.expand_as(local), atol=1e-5, rtol=0)
    torch.testing.assert_close(backbone_atoms(frames), atom37[..., :3, :])
    rest = [slot for slot in range(atoms.NUM_ATOM37) if slot not in (atoms.N, atoms.CA, atoms.C, atoms.CB, atoms.O)]
    assert atom37.shape == (2, 9, 37, 3)
    assert (atom37[..., rest, :] == 0).all()


def test_frames_to_atoms_to_frames():
    frames = chain()
    back = frames_from_backbone(*backbone_atoms(frames).unbind(-2))
    torch.testing.assert_close(back.rotmats, frames.rotmats, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.trans, frames.trans)


def test_the_residue_is_left_handed_about_ca_as_amino_acids_are():
    atom37 = to_atom37(chain())
    n, ca, c, cb = (atom37[..., slot, :] for slot in (atoms.N, atoms.CA, atoms.C, atoms.CB))
    # CORN rule: looking from H to CA, CO, R, N run clockwise; equivalently this triple product is positive for L.
    triple = (torch.linalg.cross(n - ca, c - ca, dim=-1) * (cb - ca)).sum(-1)
    assert (triple > 0).all()


def test_the_oxygen_lies_in_the_plane_of_the_peptide_bond():
    atom37 = to_atom37(chain())
    ca, c, o = (atom37[:, :-1, slot] for slot in (atoms.CA, atoms.C, atoms.O))
    next_n = atom37[:, 1:, atoms.N]
    torch.testing.assert_close((o - c).norm(dim=-1), torch.full(c.shape[:2], backbone.CARBONYL_BOND))
    normal = torch.nn.functional.normalize(torch.linalg.cross(ca - c, next_n - c, dim=-1), dim=-1)
    assert ((o - c) * normal).sum(-1).abs().max() < 1e-5
    to_ca, to_n, to_o = (torch.nn.functional.normalize(x - c, dim=-1) for x in (ca, next_n, o))
    torch.testing.assert_close((to_o * to_ca).sum(-1), (to_o * to_n).sum(-1), atol=1e-5, rtol=0)  # halves the angle
    assert ((to_o * (to_ca + to_n)).sum(-1) < 0).all()


def test_without_a_next_residue_the_oxygen_ignores_it():
    frames = chain()
    broken = torch.ones(2, 9, dtype=torch.bool)
    broken[:, [3, 8]] = False
    atom37 = to_atom37(frames, broken)
    alone = to_atom37(Frames(frames.rotmats[:, 3:4], frames.trans[:, 3:4]))
    torch.testing.assert_close(atom37[:, 3:4], alone)
    same = [0, 1, 2, 4, 5, 6, 7, 8]
    torch.testing.assert_close(atom37[:, same], to_atom37(frames)[:, same])
    ca, c, o = (atom37[:, 3, slot] for slot in (atoms.CA, atoms.C, atoms.O))
    angle = torch.nn.functional.cosine_similarity(ca - c, o - c, dim=-1).acos() * 180 / math.pi
    assert ((angle - 120).abs() < 10).all()


def test_the_collapsed_oxygen_is_on_the_axis():
    frames = chain()
    local = apply_inverse(frames, to_atom37(frames, oxygen="collapsed")[..., [atoms.O], :])
    expected = torch.tensor([backbone.IDEAL_C[0] + backbone.OXYGEN_ALONG_CA_C, 0.0, 0.0]).expand_as(local)
    torch.testing.assert_close(local, expected, atol=1e-5, rtol=0)


def test_atoms_move_with_the_frames():
    frames, turn, shift = chain(), random_rotations(1, seed=4)[0], torch.tensor([1.0, -2.0, 3.0])
    moved = to_atom37(Frames(turn @ frames.rotmats, frames.trans @ turn.mT + shift))
    placed = slice(0, 5)
    expected = to_atom37(frames)[..., placed, :] @ turn.mT + shift
    torch.testing.assert_close(moved[..., placed, :], expected, atol=1e-5, rtol=1e-5)
