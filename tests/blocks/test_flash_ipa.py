"""flash_ipa against its definition in loops: AlphaFold 2, algorithm 22, with the pair factors of FlashIPA."""

import math

import pytest
import torch

from app.blocks import build_block
from app.types import Frames, TrunkState
from tests.blocks.test_every_block import state
from tests.factories import generator, perturb, random_rotations
from tests.memory import LargestTensor

CS, H, C, P, PV, R, D = 6, 2, 3, 2, 4, 2, 5
SIZES = {"c_s": CS, "num_heads": H, "head_width": C, "num_qk_points": P, "num_v_points": PV, "rank": R, "pair_width": D}


def made(**settings):
    return perturb(build_block("flash_ipa", **SIZES | settings), scale=0.3)


def given(length: int = 5, missing: int = 0, width: int = CS) -> TrunkState:
    source = generator(1)
    mask = torch.ones(2, length)
    mask[1, length - missing :] = 0
    frames = Frames(random_rotations(2, length), torch.randn(2, length, 3, generator=source))
    node = torch.randn(2, length, width, generator=source) * mask[..., None]
    return TrunkState(node, None, frames, mask, None, torch.rand(2, 3, generator=source), mask)


def literal_attention(w: dict, node, rotmats, trans, present) -> dict:
    """One example, in double. w: the module's weights by name. Returns the rows of the residues in `present`."""

    def linear(name: str, index: int) -> torch.Tensor:
        return w[f"{name}.weight"] @ node[index] + w.get(f"{name}.bias", 0)

    def point(name: str, index: int, head: int, which: int, count: int) -> torch.Tensor:
        """In global space. The layer gives all x of all heads, then all y, then all z."""
        flat = linear(name, index)
        at = head * count + which
        return rotmats[index] @ torch.stack([flat[axis * H * count + at] for axis in range(3)]) + trans[index]

    def bias_factor(name: str, index: int, r: int, head: int) -> torch.Tensor:
        return linear(name, index)[r * (H + D) + head]

    def value_factor(name: str, index: int, r: int, channel: int) -> torch.Tensor:
        return linear(name, index)[r * (H + D) + H + channel]

    w_l, w_c = math.sqrt(1 / 3), math.sqrt(2 / (9 * P))
    rows = {}
    for i in present:
        scalars, points, pairs = [], [], []
        for h in range(H):
            heights = {}
            for j in present:
                query, key = linear("q", i)[h * C : (h + 1) * C], linear("kv", j)[2 * h * C : (2 * h + 1) * C]
                bias = sum(bias_factor("z1", i, r, h) * bias_factor("z2", j, r, h) for r in range(R))
                squared = 0
                for p in range(P):
                    apart = point("q_points", i, h, p, P) - point("kv_points", j, h, p, P + PV)
                    squared = squared + (apart * apart).sum()
                gamma = torch.log1p(w["gamma"][h].exp())
                heights[j] = (w_l * (query @ key / math.sqrt(C) + bias - gamma * w_c / 2 * squared)).exp()
            a = {j: heights[j] / sum(heights.values()) for j in present}
            scalars += [sum(a[j] * linear("kv", j)[(2 * h + 1) * C + c] for j in present) for c in range(C)]
            for p in range(PV):
                mean = sum(a[j] * point("kv_points", j, h, P + p, P + PV) for j in present)
                points.append(rotmats[i].T @ (mean - trans[i]))
            for d in range(D):
                terms = [(j, r) for j in present for r in range(R)]
                pairs.append(sum(a[j] * value_factor("z1", i, r, d) * value_factor("z2", j, r, d) for j, r in terms))
        xyz = [q[axis] for axis in range(3) for q in points]
        lengths = [((q * q).sum() + 1e-8).sqrt() for q in points]
        rows[i] = w["out.weight"] @ torch.stack([*scalars, *xyz, *lengths, *pairs]) + w["out.bias"]
    return rows


@pytest.mark.parametrize("missing", [0, 2])
def test_the_attention_is_the_published_one(missing):
    block, state = made(), given(missing=missing)
    found = block.attention(state.node, state.frames, state.node_mask)
    weights = {name: value.detach().double() for name, value in block.attention.named_parameters()}
    for b in range(2):
        present = state.node_mask[b].nonzero().flatten().tolist()
        parts = (x[b].double() for x in (state.node, state.frames.rotmats, state.frames.trans))
        for i, expected in literal_attention(weights, *parts, present).items():
            torch.testing.assert_close(found[b, i].double(), expected, atol=1e-5, rtol=1e-5)


def test_the_order_within_the_block():
    block, state = made(), given(missing=2)
    mask = state.node_mask[..., None]
    attended = block.attention(state.node, state.frames, state.node_mask)
    node = block.node_transition(block.norm(state.node + attended * mask)) * mask
    after = block(state)
    assert torch.equal(after.node, node)
    assert torch.equal(after.frames.trans, block.backbone_update(node, state.frames, state.frame_mask).trans)


def test_no_parameter_is_one_that_softmax_cancels():
    """A constant added to keys or to right factors adds the same to all logits of a row."""
    biased = {name.partition(".")[0] for name, _ in made().attention.named_parameters() if name.endswith("bias")}
    assert biased == {"q", "q_points", "kv_points", "z1", "out"}


def test_switches_leave_out_parts():
    still = made(update_backbone=False)
    assert not still.updates_backbone
    assert not any("backbone_update" in key for key in still.state_dict())


def test_a_state_without_a_frame_mask_moves_all_that_is_there():
    block, state = made(), given(missing=2).replace(frame_mask=None)
    moved = (block(state).frames.trans != state.frames.trans).any(-1)
    assert torch.equal(moved, state.node_mask.bool())


def test_an_example_without_residues_is_finite_in_values_and_gradients():
    block, state = made(), given(missing=5)
    state.node.requires_grad_()
    after = block(state)
    (after.node.square().sum() + after.frames.trans.square().sum()).backward()
    assert after.node.isfinite().all()
    assert torch.equal(after.frames.trans[1], state.frames.trans[1])
    assert state.node.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


def test_far_from_the_origin_it_is_as_exact():
    block, near = made(update_backbone=False), given()
    shift = torch.tensor([64.0, -32.0, 16.0])  # trans are multiples of 2^-12: shifting them is exact
    near = near.replace(frames=Frames(near.frames.rotmats, (near.frames.trans * 4096).round() / 4096))
    far = near.replace(frames=Frames(near.frames.rotmats, near.frames.trans + shift))
    torch.testing.assert_close(block(far).node, block(near).node, atol=2e-5, rtol=2e-5)


def test_dropout_is_on_in_training_only():
    block, state = made(dropout=0.5), given()
    assert not torch.equal(block.train()(state).node, block(state).node)
    assert torch.equal(block.eval()(state).node, block(state).node)


def test_memory_goes_with_the_length_in_the_forward_and_backward_pass():
    block, largest = made(c_s=16), []
    for length in (64, 256, 512):
        with LargestTensor() as seen:
            after = block(given(length, missing=3, width=16))
            (after.node.sum() + after.frames.trans.sum()).backward()
        largest.append(seen.numel / length)
    assert "aten::_scaled_dot_product_flash_attention_for_cpu_backward" in seen.operators
    assert largest[0] == largest[1] == largest[2]


def test_it_takes_no_edges_from_a_state_that_has_them():
    block, full = perturb(build_block("flash_ipa", c_s=16, c_z=8)), state()
    assert torch.equal(block(full).node, block(full.replace(edge=None, edge_mask=None)).node)
