"""Double attention over edges against A2-Nets (Chen et al. 2018) written out pair by pair, and what it is told of t."""

import math

import pytest
import torch

from app.blocks import build_block
from tests.blocks.test_every_block import state
from tests.factories import generator, perturb

CZ, M, C = 8, 3, 5


def made(scale: float = 0.3, **settings):
    return perturb(build_block("double_attention", c_z=CZ, num_descriptors=M, descriptor_width=C, **settings), 0, scale)


def normed(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()


def swiglu(transition, x: torch.Tensor) -> torch.Tensor:
    x = normed(x) * transition.norm.weight + transition.norm.bias
    gate = transition.gate.weight @ x
    return transition.out.weight @ (gate * torch.sigmoid(gate) * (transition.hidden.weight @ x))


def literal(block, edge, pairs, scale, shift) -> dict:
    """One example: the edges of present pairs (i, j), given the norm's scale and shift."""
    x = {pair: normed(edge[pair]) * scale + shift for pair in pairs}
    descriptors = []
    for m in range(M):
        heights = {pair: (block.gather.weight[m] @ x[pair]).exp() for pair in pairs}
        total = sum(heights.values())
        descriptors.append(sum(heights[pair] / total * (block.features.weight @ x[pair]) for pair in pairs))
    out = {}
    for pair in pairs:
        heights = [(block.distribute.weight[m] @ x[pair] + block.distribute.bias[m]).exp() for m in range(M)]
        mixed = sum(height / sum(heights) * descriptor for height, descriptor in zip(heights, descriptors, strict=True))
        attended = edge[pair] + block.out.weight @ mixed
        out[pair] = attended + swiglu(block.transition, attended)
    return out


def present(mask: torch.Tensor) -> list[tuple[int, int]]:
    where = mask.nonzero().flatten().tolist()
    return [(i, j) for i in where for j in where]


def check(block, given, norms):
    found = block(given).edge
    for b in range(2):
        pairs = present(given.node_mask[b])
        for pair, expected in literal(block, given.edge[b], pairs, *norms(b)).items():
            torch.testing.assert_close(found[b][pair], expected, atol=5e-5, rtol=1e-5)


def test_it_is_the_published_gather_and_distribute_then_a_transition():
    block = made()
    check(block, state(), lambda b: (block.norm.weight, block.norm.bias))


def test_the_times_scale_and_shift_the_normed_edges():
    block, given = made(condition_on_t=True), state()
    given = given.replace(t=given.t / 256)  # the angles reach 2056 at t = 1, and there float32 rounds them to 1e-4

    def norms(b: int):
        angles = [2056 * t.item() * math.exp(-k * math.log(2056) / 15) for t in given.t[b] for k in range(16)]
        waves = [
            wave(angle)
            for three in (angles[:16], angles[16:32], angles[32:])
            for wave in (math.sin, math.cos)
            for angle in three
        ]
        hidden = block.norm.hidden.weight @ torch.tensor(waves) + block.norm.hidden.bias
        both = block.norm.scale_shift.weight @ (hidden * torch.sigmoid(hidden)) + block.norm.scale_shift.bias
        return 1 + both[:CZ], both[CZ:]

    check(block, given, norms)


def test_conditioning_on_t_changes_the_output_if_on_and_nothing_if_off():
    given = state()
    later = given.replace(t=given.t / 2)
    on, off = made(condition_on_t=True), made()
    assert (on(later).edge - on(given).edge)[0].abs().max() > 1e-3
    assert torch.equal(off(later).edge, off(given).edge)
    assert not any("scale_shift" in key for key in off.state_dict())


@pytest.mark.parametrize("index", range(3))
def test_each_of_the_three_times_counts(index):
    block, given = made(condition_on_t=True), state()
    t = given.t.clone()
    t[:, index] /= 2
    assert not torch.allclose(block(given.replace(t=t)).edge, block(given).edge, atol=1e-3)


def test_conditioning_starts_as_none():
    """A fresh norm takes no notice of the time; what follows it is perturbed, so that one would see it."""
    block, given = build_block("double_attention", c_z=CZ, condition_on_t=True), state()
    for layer in (block.out, block.transition.out):
        perturb(layer)
    assert torch.equal(block(given.replace(t=given.t / 2)).edge, block(given).edge)
    assert not torch.equal(block(given).edge, given.edge)


def test_a_fresh_block_changes_nothing():
    given = state()
    assert torch.equal(build_block("double_attention", c_z=CZ)(given).edge, given.edge)


def test_every_pair_sees_every_other():
    block, given = made(), state()
    given.edge.requires_grad_()
    block(given).edge[0, 1, 2].sum().backward()
    assert (given.edge.grad[0] != 0).any(-1).all()


def test_an_example_without_residues_is_finite_in_values_and_gradients():
    block, given = made(condition_on_t=True), state()
    given = given.replace(node_mask=torch.zeros(2, 7), edge_mask=torch.zeros(2, 7, 7))
    edge = torch.randn(given.edge.shape, generator=generator()).requires_grad_()
    out = block(given.replace(edge=edge)).edge
    out.square().sum().backward()
    assert torch.equal(out, edge)
    assert edge.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in block.parameters())
