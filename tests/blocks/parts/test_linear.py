"""Initialisations."""

import pytest
import torch

from app.blocks.parts.linear import Linear


@pytest.mark.parametrize(("init", "variance"), [("lecun", 1 / 300), ("relu", 2 / 300), ("zero", 0.0)])
def test_variance_is_that_of_the_fan_in(init, variance):
    layer = Linear(300, 400, init=init)
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.05)
    assert layer.weight.abs().max().item() <= 2.3 * variance**0.5  # cut at two deviations of the uncut normal
    assert torch.equal(layer.bias, torch.zeros(400))


def test_without_bias():
    assert Linear(3, 4, bias=False).bias is None
