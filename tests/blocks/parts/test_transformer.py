"""The transformer against torch's, weight by weight."""

import pytest
import torch

from app.blocks.parts.transformer import Transformer, TransformerLayer
from tests.factories import generator, perturb

NAMES = {
    "qkv.weight": "self_attn.in_proj_weight",
    "qkv.bias": "self_attn.in_proj_bias",
    "out.weight": "self_attn.out_proj.weight",
    "out.bias": "self_attn.out_proj.bias",
    "hidden.weight": "linear1.weight",
    "hidden.bias": "linear1.bias",
    "contract.weight": "linear2.weight",
    "contract.bias": "linear2.bias",
    "norm_attention.weight": "norm1.weight",
    "norm_attention.bias": "norm1.bias",
    "norm_feed_forward.weight": "norm2.weight",
    "norm_feed_forward.bias": "norm2.bias",
}


@pytest.mark.parametrize("training", [False, True])
def test_a_layer_is_torchs(training):
    ours = perturb(TransformerLayer(12, 3, dropout=0.0))
    theirs = torch.nn.TransformerEncoderLayer(12, 3, dim_feedforward=12, dropout=0.0, batch_first=True)
    assert {NAMES[key] for key in ours.state_dict()} == set(theirs.state_dict())
    theirs.load_state_dict({NAMES[key]: value for key, value in ours.state_dict().items()})
    ours.train(training), theirs.train(training)
    node = torch.randn(2, 6, 12, generator=generator()).requires_grad_()
    mask = torch.ones(2, 6)
    mask[1, 4:] = 0
    found, expected = ours(node, mask), theirs(node, src_key_padding_mask=mask == 0)
    real = mask.bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-5)
    if training:
        (mine,) = torch.autograd.grad(found[real].square().sum(), node)
        (other,) = torch.autograd.grad(expected[real].square().sum(), node)
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_dropout_is_on_in_training_only():
    layers = perturb(Transformer(12, 3, 2, dropout=0.5))
    node, mask = torch.randn(2, 6, 12), torch.ones(2, 6)
    assert not torch.equal(layers.train()(node, mask), layers(node, mask))
    assert torch.equal(layers.eval()(node, mask), layers(node, mask))


def test_layers_run_one_after_the_other():
    layers = perturb(Transformer(12, 3, 2, dropout=0.0))
    node, mask = torch.randn(2, 6, 12), torch.ones(2, 6)
    assert torch.equal(layers(node, mask), layers.layers[1](layers.layers[0](node, mask), mask))
    assert torch.equal(Transformer(12, 3, 0, dropout=0.0)(node, mask), node)
