"""The geometric block against ESM3's algorithm 6 in loops (Hayes et al. 2024, supplement)."""

import math

import pytest
import torch

from app.blocks import build_block
from app.types import Frames, TrunkState
from tests.factories import generator, perturb, random_rotations
from tests.memory import LargestTensor

CS, H = 6, 3


def made(**settings):
    return perturb(build_block("geometric", **{"c_s": CS, "num_heads": H} | settings), scale=0.3)


def given(length: int = 5, missing: int = 0, width: int = CS) -> TrunkState:
    source = generator(1)
    mask = torch.ones(2, length)
    mask[1, length - missing :] = 0
    frames = Frames(random_rotations(2, length), torch.randn(2, length, 3, generator=source))
    node = torch.randn(2, length, width, generator=source) * mask[..., None]
    return TrunkState(node, None, frames, mask, None, torch.rand(2, 3, generator=source), mask)


def normed(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * weight + bias


def literal(w: dict, node, rotmats, trans, present) -> dict:
    """One example in double, pre-norm, then a SwiGLU transition. Returns the rows of the residues in `present`."""
    weights = [torch.log1p(w[f"attention.{kind}_weight"].exp()) for kind in ("rotation", "distance")]

    def local(index: int, which: int, head: int) -> torch.Tensor:
        """which: 0 and 1 the query and key of the rotation term, 2 and 3 those of the distance term, 4 the value."""
        x = normed(node[index], w["attention.norm.weight"], w["attention.norm.bias"])
        start = (which * H + head) * 3
        return w["attention.project.weight"][start : start + 3] @ x

    rows = {}
    for i in present:
        attended = []
        for h in range(H):
            heights = {}
            for j in present:
                agreement = (rotmats[i] @ local(i, 0, h)) @ (rotmats[j] @ local(j, 1, h)) / math.sqrt(3)
                apart = rotmats[i] @ local(i, 2, h) + trans[i] - rotmats[j] @ local(j, 3, h) - trans[j]
                distance = (apart * apart).sum().sqrt() / math.sqrt(3)
                heights[j] = (weights[0][h] * agreement - weights[1][h] * distance).exp()
            total = sum(heights.values())
            mean = sum(heights[j] / total * (rotmats[j] @ local(j, 4, h)) for j in present)
            attended.append(rotmats[i].T @ mean)
        row = node[i] + w["attention.out.weight"] @ torch.cat(attended)
        x = normed(row, w["transition.norm.weight"], w["transition.norm.bias"])
        gate = w["transition.gate.weight"] @ x
        hidden = gate * torch.sigmoid(gate) * (w["transition.hidden.weight"] @ x)
        rows[i] = row + w["transition.out.weight"] @ hidden
    return rows


@pytest.mark.parametrize("missing", [0, 2])
def test_it_is_algorithm_6_and_a_transition(missing):
    block, state = made(), given(missing=missing)
    found = block(state).node
    weights = {name: value.detach().double() for name, value in block.named_parameters()}
    for b in range(2):
        present = state.node_mask[b].nonzero().flatten().tolist()
        parts = (x[b].double() for x in (state.node, state.frames.rotmats, state.frames.trans))
        for i, expected in literal(weights, *parts, present).items():
            torch.testing.assert_close(found[b, i].double(), expected, atol=1e-5, rtol=1e-5)


def test_the_backbone_update_reads_the_normed_nodes():
    block, state = made(update_backbone=True), given(missing=2)
    after = block(state)
    expected = block.backbone_update(block.norm(after.node), state.frames, state.frame_mask)
    assert torch.equal(after.frames.trans, expected.trans)
    assert torch.equal(after.frames.rotmats, expected.rotmats)


def test_a_state_without_a_frame_mask_moves_all_that_is_there():
    block, state = made(update_backbone=True), given(missing=2).replace(frame_mask=None)
    moved = (block(state).frames.trans != state.frames.trans).any(-1)
    assert torch.equal(moved, state.node_mask.bool())


def test_a_fresh_block_changes_nothing():
    state = given()
    after = build_block("geometric", c_s=CS, update_backbone=True)(state)
    assert torch.equal(after.node, state.node)
    assert torch.equal(after.frames.trans, state.frames.trans)


def test_gradients_are_finite_where_all_residues_are_in_one_place():
    """Equal residues in equal frames, whose queries and keys of the distance term are equal too."""
    block, state = made(update_backbone=True), given()
    with torch.no_grad():
        project = block.attention.project.weight.view(5, H, 3, CS)
        project[3] = project[2]
    same = Frames(torch.eye(3).expand(2, 5, 3, 3), torch.zeros(2, 5, 3).requires_grad_())
    state = state.replace(node=torch.ones(2, 5, CS) * torch.arange(CS), frames=same)
    after = block(state)
    (after.node.square().sum() + after.frames.trans.square().sum()).backward()
    assert same.trans.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


def test_an_example_without_residues_is_finite_in_values_and_gradients():
    block, state = made(update_backbone=True), given(missing=5)
    state.node.requires_grad_()
    after = block(state)
    (after.node.square().sum() + after.frames.trans.square().sum()).backward()
    assert torch.equal(after.node[1], state.node[1])
    assert torch.equal(after.frames.trans[1], state.frames.trans[1])
    assert state.node.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


def test_memory_goes_with_the_length_in_the_forward_and_backward_pass():
    block, largest = made(c_s=16, update_backbone=True), []
    for length in (64, 256, 512):
        with LargestTensor() as seen:
            after = block(given(length, missing=3, width=16))
            (after.node.sum() + after.frames.trans.sum()).backward()
        largest.append(seen.numel / length)
    assert largest[0] == largest[1] == largest[2]
