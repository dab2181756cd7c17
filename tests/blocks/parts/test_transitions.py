"""Transitions and the backbone update, as formulas."""

import torch
import torch.nn.functional as F

from app.blocks.parts.transitions import BackboneUpdate, EdgeTransition, NodeTransition
from app.geometry.rotations import from_quaternion
from app.types import Frames
from tests.factories import generator, perturb, random_rotations


def norm(layer: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def test_node_transition():
    module, node = perturb(NodeTransition(6)), torch.randn(2, 4, 6, generator=generator())
    hidden = node
    for layer in (module.first, module.second):
        hidden = (hidden @ layer.weight.T + layer.bias).clamp(min=0)
    expected = norm(module.norm, node + hidden @ module.last.weight.T + module.last.bias)
    torch.testing.assert_close(module(node), expected)


def test_edge_transition_sees_the_edge_then_node_i_then_node_j():
    module = perturb(EdgeTransition(6, 5))
    node, edge = torch.randn(1, 3, 6, generator=generator()), torch.randn(1, 3, 3, 5, generator=generator(1))
    mask = torch.ones(1, 3, 3)
    mask[0, 1, 2] = 0
    out = module(node, edge, mask)
    for i in range(3):
        for j in range(3):
            x = torch.cat([edge[0, i, j], module.narrow(node[0, i]), module.narrow(node[0, j])])
            hidden = module.second(module.first(x).relu()).relu()
            expected = norm(module.norm, module.last(hidden + x)) * mask[0, i, j]
            torch.testing.assert_close(out[0, i, j], expected, atol=1e-5, rtol=1e-5)


def test_backbone_update_moves_each_frame_in_its_own_coordinates():
    module, node = perturb(BackboneUpdate(6)), torch.randn(2, 4, 6, generator=generator())
    frames = Frames(random_rotations(2, 4), torch.randn(2, 4, 3, generator=generator(1)))
    mask = torch.ones(2, 4)
    mask[0, 1] = 0
    moved = module(node, frames, mask)
    b, c, d, x, y, z = module.linear(node)[1, 2]
    turn = from_quaternion(torch.stack([torch.ones(()), b, c, d]))
    rotation = frames.rotmats[1, 2]
    torch.testing.assert_close(moved.rotmats[1, 2], rotation @ turn)
    torch.testing.assert_close(moved.trans[1, 2], frames.trans[1, 2] + rotation @ torch.stack([x, y, z]))
    assert torch.equal(moved.rotmats[0, 1], frames.rotmats[0, 1])


def test_fresh_modules_start_as_the_identity():
    node, frames = torch.randn(2, 4, 6), Frames(random_rotations(2, 4), torch.randn(2, 4, 3))
    moved = BackboneUpdate(6)(node, frames, torch.ones(2, 4))
    assert torch.equal(moved.trans, frames.trans)
    assert torch.equal(moved.rotmats, frames.rotmats)
    torch.testing.assert_close(NodeTransition(6)(node), F.layer_norm(node, (6,)))
