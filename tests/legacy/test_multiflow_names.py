"""Names: one to one, in Multiflow's order."""

import pytest

from app.legacy import multiflow_names as names
from tests.factories import tiny_model


def ours() -> list[str]:
    return [name for name, _ in tiny_model().named_parameters()]


def test_every_parameter_has_one_name_in_each_language():
    theirs = [names.theirs(name) for name in ours()]
    assert None not in theirs
    assert len(set(theirs)) == len(theirs)
    assert [names.ours(name) for name in theirs] == ours()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("node_feature_net.aatype_embedding.weight", "node_embed.token.weight"),
        ("node_feature_net.linear.4.bias", "node_embed.project.4.bias"),
        ("node_feature_net.linear.weight", "node_embed.project.weight"),
        ("edge_feature_net.linear_relpos.bias", "edge_embed.relative.bias"),
        ("aatype_pred_net.4.weight", "head.layers.4.weight"),
        ("trunk.ipa_11.head_weights", "trunk.stages.0.11.attention.gamma"),
        ("trunk.ipa_0.linear_q.weight", "trunk.stages.0.0.attention.q.weight"),
        ("trunk.ipa_0.linear_q_points.weight", "trunk.stages.0.0.attention.q_points.weight"),
        ("trunk.ipa_0.linear_kv.bias", "trunk.stages.0.0.attention.kv.bias"),
        ("trunk.ipa_0.linear_kv_points.bias", "trunk.stages.0.0.attention.kv_points.bias"),
        ("trunk.ipa_ln_3.weight", "trunk.stages.0.3.norm.weight"),
        ("trunk.seq_tfmr_2.layers.10.self_attn.in_proj_bias", "trunk.stages.0.2.transformer.layers.10.qkv.bias"),
        ("trunk.seq_tfmr_2.layers.0.norm2.weight", "trunk.stages.0.2.transformer.layers.0.norm_feed_forward.weight"),
        ("trunk.bb_update_1.linear.weight", "trunk.stages.0.1.backbone_update.linear.weight"),
        ("trunk.edge_transition_1.trunk.2.bias", "trunk.stages.0.1.edge_transition.second.bias"),
    ],
)
def test_pairs(old, new):
    assert names.ours(old) == new
    assert names.theirs(new) == old


@pytest.mark.parametrize(
    "name",
    ["", "trunk", "trunk.ipa_0", "trunk.ipa_x.linear_q.weight", "trunk.ipa_0.linear_z.weight", "encoder.weight",
     "trunk.seq_tfmr_0.layers.0.norm3.weight", "trunk.seq_tfmr_0.layers.x.norm1.weight", "model.trunk.ipa_ln_0.weight",
     "trunk.stages.0.0.norm.weight"],
)  # fmt: skip
def test_what_is_none_of_theirs(name):
    assert names.ours(name) is None


@pytest.mark.parametrize(
    "name", ["trunk.stages.1.0.norm.weight", "trunk.stages.0.0.other.weight", "esm.weight", "trunk.ipa_ln_0.weight"]
)
def test_what_is_none_of_ours(name):
    assert names.theirs(name) is None


def test_the_order_is_multiflows():
    theirs = [names.theirs(name) for name in ours()]
    ordered = names.legacy_order(sorted(theirs, reverse=True))
    kinds = []
    for name in ordered:
        kind = name.split(".")[0] if not name.startswith("trunk.") else name.split(".")[1]
        if kind not in kinds:
            kinds.append(kind)
    assert kinds == [
        "node_feature_net", "edge_feature_net", "aatype_pred_net",
        "ipa_0", "ipa_ln_0", "seq_tfmr_0", "post_tfmr_0", "node_transition_0", "bb_update_0", "edge_transition_0",
        "ipa_1", "ipa_ln_1", "seq_tfmr_1", "post_tfmr_1", "node_transition_1", "bb_update_1",
    ]  # fmt: skip
    assert names.legacy_order(theirs) == theirs  # our modules already are in that order


def test_blocks_are_ordered_by_number_not_by_letter():
    made = [f"trunk.ipa_ln_{index}.weight" for index in (10, 2, 1)]
    assert names.legacy_order(made) == made[::-1]


@pytest.mark.parametrize("name", ["torsion_pred.linear_1.weight", "trunk.torsion_net.bias", "trunk.torsions_0.w"])
def test_leftovers_of_the_torsion_head_are_known(name):
    assert names.TORSION.search(name)


def test_no_parameter_of_ours_is_taken_for_a_leftover():
    assert not [name for name in map(names.theirs, ours()) if names.TORSION.search(name)]
