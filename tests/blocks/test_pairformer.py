"""The pairformer with and without nodes against AlphaFold 3's algorithm 17, its dropout, and what it leaves out."""

import pytest
import torch

from app.blocks import block_settings, build_block
from app.blocks.parts.dropout import Dropout
from app.errors import UserError
from tests.blocks import alphafold3
from tests.blocks.alphafold3 import part
from tests.blocks.pair_states import assert_is, block, state

SIZES = {"pair_num_heads": 2, "pair_head_width": 3}


def test_it_is_algorithm_17():
    def algorithm(s, z, present, w):
        z = alphafold3.pair_track(z, present, part(w, "pair_track"), heads=2)
        return alphafold3.node_track(s, z, present, part(w, "node_track"), heads=3), z

    assert_is(algorithm, block("pairformer", num_heads=3, **SIZES))


@pytest.mark.parametrize(
    ("name", "changes"), [("pairformer_noseq", {}), ("pairformer", {"num_heads": 3, "update_node": False})]
)
def test_without_nodes_it_is_algorithm_17_up_to_line_5(name, changes):
    def algorithm(s, z, present, w):
        return s, alphafold3.pair_track(z, present, part(w, "pair_track"), heads=2)

    assert_is(algorithm, block(name, **changes, **SIZES))


def test_both_have_the_same_pair_track():
    alone, both = block("pairformer_noseq", **SIZES), block("pairformer", num_heads=3, **SIZES)
    alone.pair_track.load_state_dict(both.pair_track.state_dict())
    edge, mask = state().edge, state().edge_mask
    assert torch.equal(alone.pair_track(edge, mask), both.pair_track(edge, mask))


@pytest.mark.parametrize(("name", "own"), [("pairformer", {"num_heads": 3}), ("pairformer_noseq", {})])
def test_a_quarter_is_dropped_along_rows_and_after_the_last_triangle_update_along_columns(name, own):
    module = build_block(name, c_s=12, **own)
    found = {path: layer for path, layer in module.named_modules() if isinstance(layer, Dropout)}
    assert {
        path.removeprefix("pair_track."): (layer.shared, layer.p, layer.p_infer) for path, layer in found.items()
    } == {
        "multiplication.dropout": ("row", 0.25, 0.0),
        "attention.dropout_rows": ("row", 0.25, 0.0),
        "attention.dropout_columns": ("column", 0.25, 0.0),
    }


def test_rates_of_training_and_inference_are_told_apart():
    given = state()
    changing = block("pairformer", num_heads=3, **SIZES, dropout={"train": 0.0, "infer": 0.5})
    with torch.no_grad():
        assert not torch.equal(changing(given).node, changing(given).node)
        changing.train()
        assert torch.equal(changing(given).node, changing(given).node)


def test_nodes_that_nothing_reads_are_not_updated():
    settings = block_settings("pairformer", {"c_s": 12, "num_heads": 3})
    assert settings.for_readers({"edge"}) == settings.model_copy(update={"update_node": False})
    assert settings.for_readers({"node"}) == settings
    assert settings.for_readers({"frames"}) is None


def test_widths_that_the_heads_do_not_divide_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"^block: c_s=12 is not divisible by num_heads=5") as caught:
        build_block("pairformer", c_s=12, c_z=6, num_heads=5)
    assert "\n" not in str(caught.value)
    assert build_block("pairformer_noseq", c_s=13, c_z=6)
