"""The pair bias block against AlphaFold 3's algorithm 24, its precision, and widths that do not fit."""

import pytest
import torch

from app.blocks import build_block
from app.errors import UserError
from tests.blocks import alphafold3
from tests.blocks.alphafold3 import part
from tests.blocks.pair_states import assert_is, block, state


def test_it_is_algorithm_24_and_a_transition():
    def algorithm(s, z, present, w):
        return alphafold3.node_track(s, z, present, part(w, "node_track"), heads=3), z

    assert_is(algorithm, block("pair_bias", num_heads=3))


def test_attention_stays_in_float32_under_autocast():
    attention, given = block("pair_bias", num_heads=3).node_track.attention, state()
    expected = attention(given.node, given.edge, given.node_mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(given.node, given.edge, given.node_mask)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_a_constant_added_to_the_normed_edges_would_change_nothing():
    """Why their LayerNorm has no bias: softmax cancels it."""
    attention, given = block("pair_bias", num_heads=3).node_track.attention, state()
    before = attention(given.node, given.edge, given.node_mask)
    assert attention.norm_edge.bias is None
    attention.norm_edge.bias = torch.nn.Parameter(torch.randn(given.edge.shape[-1]))
    torch.testing.assert_close(attention(given.node, given.edge, given.node_mask), before, atol=1e-5, rtol=1e-5)


def test_widths_that_the_heads_do_not_divide_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"^block: c_s=12 is not divisible by num_heads=5") as caught:
        build_block("pair_bias", c_s=12, c_z=6, num_heads=5)
    assert "\n" not in str(caught.value)
