"""Stages: completed from their block type, run in order, refused with the key at fault."""

import pytest
import torch

from app.blocks import block_class
from app.config.validate import parse
from app.errors import UserError
from app.model.codesign import CodesignModel, ModelSettings
from app.model.trunk import Trunk, TrunkSettings
from app.training.recipe import parse_recipe
from tests.blocks.test_every_block import state
from tests.factories import perturb, tiny_recipe

SIZES = {"c_s": 16, "c_z": 8}
SMALL = {"block": "ipa", "num_heads": 2, "head_width": 4, "transformer_layers": 1, "transformer_heads": 2}


def trunk(*stages: dict) -> Trunk:
    return perturb(Trunk(TrunkSettings(stages=list(stages)), SIZES, {"node"})).eval()


def test_stages_are_completed_with_the_defaults_of_their_block():
    (stage,) = TrunkSettings(stages=[{"block": "ipa", "depth": 3, "num_heads": 2}]).completed(SIZES).stages
    defaults = block_class("ipa").Settings().model_dump(exclude={"c_s", "c_z"})
    own = {"block": "ipa", "depth": 3, "share_weights": False, "checkpoint": False}
    assert stage.model_dump() == {**own, **defaults, "num_heads": 2}
    again = TrunkSettings(stages=[stage.model_dump()]).completed(SIZES)
    assert again.stages == [stage]


def test_a_recipe_survives_its_own_dump():
    recipe = parse_recipe(tiny_recipe())
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe


def test_stages_run_in_order_with_their_depths():
    model = trunk({**SMALL, "depth": 2, "update_last_edge": True}, {**SMALL, "depth": 1})
    assert [len(stage) for stage in model.stages] == [2, 1]
    expected = state()
    for stage in model.stages:
        for block in stage:
            expected = block(expected)
    found = model(state())
    assert torch.equal(found.node, expected.node)
    assert torch.equal(found.frames.trans, expected.frames.trans)


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "stages"),
        ([{"block": "nope"}], "'nope' is not a block type"),
        ([{"depth": 2}], "stages.0.block"),
        ([{"block": "ipa", "depth": 0}], "stages.0.depth"),
        ([{"block": "ipa", "num_head": 2}], "num_head"),
        ([SMALL, {"block": "ipa", "c_s": 8}], "stages.1: c_s, c_z are those of the whole model"),
        ([{"block": "ipa", "transformer_heads": 3}], "transformer_heads=3"),
        ([{**SMALL, "update_backbone": False}], "no stage updates the backbone"),
    ],
)
def test_refusals_name_the_stage_and_the_cure(stages, says):
    with pytest.raises(UserError) as caught:
        CodesignModel(parse(ModelSettings, {"c_s": 16, "c_z": 8, "trunk": {"stages": stages}}, where="model"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_widths_that_do_not_fit_are_told_for_the_width_of_the_model():
    recipe = tiny_recipe(model={"c_s": 18, "trunk": {"stages": [{**SMALL, "transformer_heads": 4}]}})
    with pytest.raises(UserError, match="c_s=18 is not divisible by transformer_heads=4"):
        CodesignModel(parse_recipe(recipe).model)
