"""The recipe: plain data, checked whole, refused with the key at fault."""

import json

import pytest
from pydantic import ValidationError

from app.errors import UserError
from app.training.recipe import Recipe, parse_recipe
from tests.factories import tiny_recipe


def test_a_recipe_is_plain_data_with_everything_filled_in():
    recipe = parse_recipe(tiny_recipe())
    plain = recipe.model_dump(mode="json")
    assert json.loads(json.dumps(plain)) == plain
    assert parse_recipe(plain) == recipe
    assert set(plain) == set(Recipe.model_fields)
    assert plain["flow"]["igso3_sigma"] == 1.5
    assert plain["model"]["trunk"]["stages"][0]["update_last_edge"] is False


def test_a_recipe_does_not_change():
    with pytest.raises(ValidationError):
        parse_recipe(tiny_recipe()).seed = 4


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"flow": {"min_tt": 0.1}}, ["flow.min_tt", "did you mean min_t"]),
        ({"flow": {"min_t": 0.7}}, ["flow.min_t=0.7"]),
        ({"flow": {"forward_folding_share": 0.6, "inverse_folding_share": 0.6}}, ["flow", "forward_folding_share"]),
        ({"loss": {"max_t": 1.0}}, ["loss.max_t=1.0"]),
        ({"optimizer": {"lr": "fast"}}, ["optimizer.lr='fast'"]),
        ({"optimizer": {"betas": [0.9]}}, ["optimizer.betas"]),
        ({"optimizer": {"betas": [0.9, 1.0]}}, ["optimizer.betas"]),
        ({"sampler": {"tokens": "uniform"}}, ["sampler", "token_step=plain"]),
        ({"trainer": {"precision": "16-mixed"}}, ["trainer.precision='16-mixed'"]),
        ({"trainer": {"max_steps": 0}}, ["trainer.max_steps"]),
        ({"model": {"c_s": 15}}, ["15"]),
        ({"model": {"num_tokens": 5}}, ["model.num_tokens=5"]),
        ({"model": {"node_embed": {"c_position": 7}}}, ["model.node_embed.c_position=7"]),
        ({"model": {"edge_embed": {"num_bins": 1}}}, ["model.edge_embed.num_bins=1"]),
        ({"model": {"esm": {"kind": "esm9"}}}, ["model.esm.kind"]),
        ({"model": {"esm": {"kind": "esm2"}}}, ["model.esm.name", "missing"]),
        ({"model": {"trunk": {"stages": [{"block": "ipa", "depht": 3}]}}}, ["depht"]),
        ({"surprise": {"a": 1}}, ["surprise"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"name": None}, ["name"]),
    ],
    ids=str,
)
def test_refusals_are_one_line_and_name_the_key(sections, says):
    plain = tiny_recipe()
    for section, changes in sections.items():
        plain[section] = {**plain.get(section, {}), **changes} if isinstance(changes, dict) else changes
    with pytest.raises(UserError) as caught:
        from app.training.module import CodesignModule

        CodesignModule(plain)
    message = str(caught.value)
    assert "\n" not in message
    for said in says:
        assert said in message


@pytest.mark.parametrize("plain", [None, [], "text", 5, {}])
def test_what_is_no_recipe(plain):
    with pytest.raises(UserError):
        parse_recipe(plain)
