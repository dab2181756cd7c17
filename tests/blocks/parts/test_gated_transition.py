"""The SwiGLU transition as a formula."""

import torch

from app.blocks.parts.gated_transition import GatedTransition
from tests.factories import generator, perturb


def test_it_is_a_gated_hidden_layer_over_the_normed_input():
    module, x = perturb(GatedTransition(6, 3)), torch.randn(2, 4, 6, generator=generator())
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * module.norm.weight + module.norm.bias
    gate, value = normed @ module.gate.weight.T, normed @ module.hidden.weight.T
    assert gate.shape == (2, 4, 18)
    torch.testing.assert_close(module(x), gate * gate.sigmoid() * value @ module.out.weight.T)


def test_it_starts_by_adding_nothing_and_has_no_biases():
    module = GatedTransition(6)
    assert not module(torch.randn(2, 6)).any()
    assert sorted(name for name, _ in module.named_parameters() if "bias" in name) == ["norm.bias"]
