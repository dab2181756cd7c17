"""Weights taken over into another model: what fits, what does not and why, and nothing unaccounted for."""

import pytest
import torch

from app.model.codesign import CodesignModel
from app.training.transfer import match, transfer
from tests.factories import noisy_batch, results, tiny_model, tiny_recipe

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
