"""Weights taken over into another model: what fits, what does not and why, and nothing unaccounted for."""

import pytest
import torch

from app.blocks import build_block
from app.config.validate import parse
from app.legacy import boltz
from app.model.codesign import CodesignModel, ModelSettings
from app.training.checkpoint import open_checkpoint
from app.training.run import train
from app.training.transfer import match, transfer
from tests.factories import noisy_batch, perturb, results, tiny_model, tiny_recipe
from tests.model.esm.made_esm import write_esm
from tests.training import runs

STAGE = tiny_recipe()["model"]["trunk"]["stages"][0]


def model(*stages: dict, seed: int = 1, **changes) -> CodesignModel:
    return tiny_model(seed, trunk={"stages": list(stages) or [STAGE]}, **changes)


def accounted(report, source: CodesignModel, target: CodesignModel) -> None:
    """Every number of the target is taken or new; every part of the source is taken or left."""
    size = sum(parameter.numel() for parameter in target.parameters())
    assert report.numbers_taken + sum(count for _, count in report.new) == size
    assert sum(target.state_dict()[name].numel() for name in report.tensors) == report.numbers_taken
    named = [name for name, _, _ in report.taken] + [name for name, _ in report.left]
    assert all(any(key.startswith(f"{name}.") for name in named) for key in source.state_dict())


def test_an_equal_model_is_taken_whole():
    source, target = model(seed=1), model(seed=2)
    report = transfer(source, target)
    accounted(report, source, target)
    assert not report.left and not report.new
    for name, value in results(source(noisy_batch())).items():
        assert torch.equal(results(target(noisy_batch()))[name], value)


def test_a_deeper_trunk_takes_blocks_in_order_wherever_they_stand():
    source = model({**STAGE, "depth": 3})
    first = {**STAGE, "depth": 1, "update_backbone": False, "update_last_edge": True}
    target = model(first, {"repeat": 2, "stages": [{**STAGE, "depth": 2}]}, seed=2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    report = transfer(source, target)
    accounted(report, source, target)
    pairs = {here: there for there, here, _ in report.taken}
    assert pairs["trunk.stages.0.0"] == "trunk.stages.0.0"
    assert pairs["trunk.stages.1.0.stages.0.0"] == "trunk.stages.0.1"
    assert pairs["trunk.stages.1.0.stages.0.1"] == "trunk.stages.0.2"
    assert dict(report.left) == {"trunk.stages.0.0.backbone_update": "this model has none there"}
    assert [name for name, _ in report.new] == ["trunk.stages.1.1.stages.0.0", "trunk.stages.1.1.stages.0.1"]
    for name, tensor in target.state_dict().items():
        expected = source.state_dict()[report.tensors[name]] if name in report.tensors else before[name]
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"trunk": {"stages": [{**STAGE, "num_heads": 4, "head_width": 2}]}}, "num_heads is 2 there and 4 here"),
        ({"trunk": {"stages": [{**STAGE, "transformer_layers": 2}]}}, "transformer_layers is 1 there and 2 here"),
        ({"edge_embed": {"feature_width": 8, "num_bins": 7}}, "num_bins is 6 there and 7 here"),
        ({"num_tokens": 20}, r"layers.4.weight is [21, 16] there and [20, 16] here"),
        ({"head": {"kind": "none"}}, "this model has nothing of its kind"),
    ],
)
def test_what_does_not_fit_is_left_with_the_reason(changes, left):
    source, target = model(), tiny_model(2, **changes)
    report = transfer(source, target)
    accounted(report, source, target)
    assert left in [why for _, why in report.left]
    assert any(left in line for line in report.lines())


def test_what_is_not_to_be_taken_is_left_with_the_reason(tmp_path):
    esm = {"kind": "esm2", "name": str(write_esm(tmp_path / "esm"))}
    source, target = model(seed=1, esm=esm), model(seed=2, esm=esm)
    before = {name: tensor.clone() for name, tensor in target.esm.state_dict().items()}
    report = transfer(source, target, {"esm": "learnt on another"})
    accounted(report, source, target)
    assert report.left == [("esm", "learnt on another")]
    assert [name for name, _ in report.new] == ["esm"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.esm.state_dict().items())
    report = transfer(source, target)
    assert not report.left and torch.equal(target.esm.mix.weights, source.esm.mix.weights)


def test_a_refined_head_takes_the_mlp():
    head = {"kind": "refined", "stages": [{**STAGE, "update_backbone": False, "update_edge": False, "depth": 1}]}
    source, target = model(), tiny_model(2, head=head)
    report = transfer(source, target)
    accounted(report, source, target)
    assert torch.equal(target.head.layers[0].weight, source.head.layers[0].weight)
    assert [name for name, _ in report.new] == ["head.stack.stages.0.0"]


def test_matching_alone_needs_no_numbers():
    with torch.device("meta"):
        one, other = CodesignModel(model().settings), CodesignModel(model({**STAGE, "depth": 1}).settings)
    report = match(one, other)
    assert report.numbers_taken == sum(parameter.numel() for parameter in other.parameters())
    assert [name for name, _ in report.left] == ["trunk.stages.0.0.edge_transition", "trunk.stages.0.1"]


# Multiflow's weights in other recipes


def test_multiflows_weights_in_every_recipe_that_has_parts_of_its_kind(shared):
    """Embeddings, IPA blocks and the head's layers of a checkpoint of the original, in a deeper trunk."""
    source = open_checkpoint(shared / "legacy_multiflow" / "last.ckpt").module.model
    plain = source.settings.model_dump(mode="json")
    (ipa,) = plain["trunk"]["stages"]
    deeper = [{"block": "pairformer", "depth": 2, "num_heads": 4}, {**ipa, "depth": 2, "update_edge": False}]
    head = {"kind": "refined", "stages": [{"block": "pair_bias", "num_heads": 4}]}
    target = CodesignModel(parse(ModelSettings, plain | {"trunk": {"stages": deeper}, "head": head}, "model"))
    report = transfer(source, target)
    accounted(report, source, target)
    state, original = target.state_dict(), source.state_dict()
    for here, there in (
        ("node_embed.token.weight", "node_embed.token.weight"),
        ("edge_embed.project.0.weight", "edge_embed.project.0.weight"),
        ("head.layers.4.bias", "head.layers.4.bias"),
        ("trunk.stages.1.0.attention.q.weight", "trunk.stages.0.0.attention.q.weight"),
        ("trunk.stages.1.1.backbone_update.linear.weight", "trunk.stages.0.1.backbone_update.linear.weight"),
    ):
        assert torch.equal(state[here], original[there])
    assert {name for name, _ in report.new} == {"trunk.stages.0.0", "trunk.stages.0.1", "head.stack.stages.0.0"}
    left = dict(report.left)
    assert left["trunk.stages.0.2"] == "this model has no more of its kind"
    assert left["trunk.stages.0.0.edge_transition"] == "this model has none there"


def test_a_run_starts_from_multiflows_weights_and_boltzs_and_says_what_it_took(shared, tmp_path, capsys):
    """`weights=` and `weights_boltz=` on the command line of another recipe."""
    plain = open_checkpoint(shared / "legacy_multiflow" / "last.ckpt").recipe["model"]
    widths = [f"model.{key}={plain[key]}" for key in ("c_s", "c_z", "num_tokens")]
    widths += [f"model.{part}.{k}={v}" for part in ("node_embed", "edge_embed") for k, v in plain[part].items()]
    trunk = [
        "model.trunk.stages=[{block: pairformer, depth: 2, num_heads: 4, pair_num_heads: 2, pair_head_width: 4},"
        " {block: ipa, depth: 1, num_heads: 4, head_width: 8, update_edge: false, transformer_heads: 4}]",
    ]
    donor = build_block("pairformer_noseq", c_z=plain["c_z"], pair_num_heads=2, pair_head_width=4)
    layer = {boltz._theirs(name): tensor for name, tensor in perturb(donor).state_dict().items()}
    torch.save({"state_dict": {f"pairformer_module.layers.0.{k}": v for k, v in layer.items()}}, tmp_path / "b.ckpt")
    made = ["recipe=pairformer_heavy", "model/head=mlp", *widths, *trunk, *runs.data(tmp_path), "trainer=cpu"]
    still = ["trainer.max_steps=1", "optimizer.lr=1e-12", "optimizer.weight_decay=0", f"out={tmp_path / 'out'}"]
    start = [f"weights={shared}/legacy_multiflow/last.ckpt", f"weights_boltz={tmp_path / 'b.ckpt'}"]
    train([*made, *still, *start])
    said = capsys.readouterr().out
    assert "  taken node_embed, " in said and "  new: trunk.stages.0.1, " in said
    assert "trunk.stages.0.0.pair_track: from state_dict.pairformer_module.layers.0" in said
    weights = runs.weights(tmp_path / "out")
    name = "pair_track.multiplication.outgoing.p_in.weight"
    torch.testing.assert_close(weights[f"model.trunk.stages.0.0.{name}"], donor.state_dict()[name], atol=1e-9, rtol=0)
