"""Multiflow's block: the attention module's layout, and how the parts are put together."""

import math

import torch
import torch.nn.functional as F

from app.blocks import build_block
from app.blocks.ipa import Block, Settings
from app.blocks.parts.point_attention import InvariantPointAttention
from app.types import Frames
from tests.blocks.test_every_block import state
from tests.factories import generator, perturb, random_rotations

H, C, P, PV = 2, 3, 2, 4


def literal(module: InvariantPointAttention, node, edge, frames, mask) -> torch.Tensor:
    """Algorithm 22 of AlphaFold 2 on one example, in loops, with Multiflow's layout of weights and features."""
    length, narrow = len(node), module.pair_down.out_features

    def points(layer, index, count):
        """All x of all heads, then all y, then all z -> [H, count, 3]."""
        flat = layer(node[index])
        total = len(flat) // 3
        return torch.stack([flat[axis * total : (axis + 1) * total] for axis in range(3)], -1).view(H, count, 3)

    def out(index, point):
        return frames.rotmats[index] @ point + frames.trans[index]

    rows = []
    for i in range(length):
        scalars, xyz, pairs = [], [], []
        for h in range(H):
            logits = []
            for j in range(length):
                query = module.q(node[i]).view(H, C)[h]
                key = module.kv(node[j]).view(H, 2 * C)[h, :C]
                logit = query @ key / math.sqrt(3 * C) + math.sqrt(1 / 3) * module.pair_bias(edge[i, j])[h]
                apart = 0
                for p in range(P):
                    a = out(i, points(module.q_points, i, P)[h, p])
                    b = out(j, points(module.kv_points, j, P + PV)[h, p])
                    apart = apart + (a - b).square().sum()
                gamma = F.softplus(module.gamma[h]) * math.sqrt(1 / (3 * (P * 9 / 2)))
                logits.append(logit - 0.5 * gamma * apart - 1e5 * (1 - mask[i] * mask[j]))
            weight = torch.softmax(torch.stack(logits), 0)
            scalars.append(sum(weight[j] * module.kv(node[j]).view(H, 2 * C)[h, C:] for j in range(length)))
            pairs.append(sum(weight[j] * module.pair_down(edge[i, j]) for j in range(length)))
            mean = sum(
                weight[j] * torch.stack([out(j, points(module.kv_points, j, P + PV)[h, P + p]) for p in range(PV)])
                for j in range(length)
            )
            xyz.append((mean - frames.trans[i]) @ frames.rotmats[i])
        xyz = torch.cat(xyz)
        features = [torch.cat(scalars), *xyz.T, (xyz.square().sum(-1) + 1e-8).sqrt(), torch.cat(pairs)]
        assert len(features[-1]) == H * narrow
        rows.append(module.out(torch.cat(features)))
    return torch.stack(rows)


def test_the_attention_module_is_algorithm_22_with_multiflows_layout():
    module = perturb(InvariantPointAttention(6, 8, H, C, P, PV), scale=0.3)
    source = generator(1)
    node, edge = torch.randn(2, 5, 6, generator=source), torch.randn(2, 5, 5, 8, generator=source)
    frames = Frames(random_rotations(2, 5), torch.randn(2, 5, 3, generator=source))
    mask = torch.ones(2, 5)
    mask[1, 3:] = 0
    found = module(node, edge, frames, mask)
    for b in range(2):
        expected = literal(module, node[b], edge[b], Frames(frames.rotmats[b], frames.trans[b]), mask[b])
        present = mask[b].bool()  # what the rows of absent residues hold, the block masks away
        torch.testing.assert_close(found[b, present], expected[present], atol=1e-5, rtol=1e-5)


def test_the_order_within_the_block():
    block, given = perturb(build_block("ipa", c_s=16, c_z=8)).eval(), state()
    mask = given.node_mask[..., None]
    node = block.norm(given.node + block.attention(given.node, given.edge, given.frames, given.node_mask) * mask)
    node = node + block.after_transformer(block.transformer(node, given.node_mask))
    node = block.node_transition(node) * mask
    after = block(given)
    assert torch.equal(after.node, node)
    assert torch.equal(after.frames.trans, block.backbone_update(node, given.frames, given.frame_mask).trans)
    assert torch.equal(after.edge, block.edge_transition(node, given.edge, given.edge_mask))


def test_switches_leave_out_parts():
    still = build_block("ipa", c_s=16, c_z=8, update_backbone=False, update_edge=False)
    assert not still.updates_backbone
    after = perturb(still)(state())
    assert torch.equal(after.edge, state().edge)
    assert torch.equal(after.frames.trans, state().frames.trans)
    assert not any("backbone_update" in key or "edge_transition" in key for key in still.state_dict())


def test_the_last_block_of_a_stage_leaves_the_edges_unless_told():
    def updates(**settings) -> list[bool]:
        stage = Settings(c_s=16, c_z=8, transformer_layers=0, **settings).layers(3)
        return [Block(settings).edge_transition is not None for settings in stage]

    assert updates() == [True, True, False]
    assert updates(update_last_edge=True) == [True, True, True]
    assert updates(update_edge=False, update_last_edge=True) == [False, False, False]


def test_a_state_without_a_frame_mask_moves_all_that_is_there():
    block, given = perturb(build_block("ipa", c_s=16, c_z=8)).eval(), state().replace(frame_mask=None)
    moved = (block(given).frames.trans != given.frames.trans).any(-1)
    assert torch.equal(moved, given.node_mask.bool())


def test_attention_dropout_is_on_in_training_only():
    block, given = perturb(build_block("ipa", c_s=16, c_z=8, dropout=0.5, transformer_dropout=0.0)), state()
    assert not torch.equal(block.train()(given).node, block(given).node)
    assert torch.equal(block.eval()(given).node, block(given).node)
