"""Multiflow's config: references without resolvers, dimensions from shapes, nothing lost on the way and back."""

import pytest
import torch

from app.errors import UserError
from app.legacy.multiflow_config import resolve, to_config, to_recipe
from app.sampling import SAMPLERS
from app.training.recipe import parse_recipe
from tests.factories import tiny_module, tiny_recipe
from tests.legacy.made_checkpoint import CONFIG, config, state_dict


def tensors(**sections) -> dict[str, torch.Tensor]:
    return {name.removeprefix("model."): value for name, value in state_dict(tiny_module(**sections)).items()}


def recipe(of=CONFIG, **sections):
    return parse_recipe(to_recipe(resolve(of), tensors(**sections)))


# References


def test_references_are_followed_and_types_kept():
    found = resolve({"a": 3, "b": "${a}", "c": {"d": "${c.e}", "e": [1, "${a}"]}, "f": "x${a}y${b}"})
    assert found == {"a": 3, "b": 3, "c": {"d": [1, 3], "e": [1, 3]}, "f": "x3y3"}


@pytest.mark.parametrize(
    "text",
    ["${oc.env:HOME}", "${now:%Y-%m-%d}", "${oc.decode:x}", "${eval:1+1}", "a ${oc.env:HOME} b", "${missing.key}"],
)
def test_resolvers_and_missing_references_stay_text(text, monkeypatch):
    monkeypatch.setenv("HOME", "/secret")
    assert resolve({"a": text, "b": "${a}"}) == {"a": text, "b": text}


@pytest.mark.parametrize(
    "circle",
    [
        {"a": "${a}"},
        {"a": "${b}", "b": "${c}", "c": "${a}"},
        {"a": {"b": "${a}"}},
        {"a": {"b": "${c}"}, "c": ["x${a.b}"]},
        {"a": "${a.b}"},
    ],
)
def test_circles_are_an_error_unless_they_lead_nowhere(circle):
    if circle == {"a": "${a.b}"}:  # names a key of a text: missing
        assert resolve(circle) == circle
        return
    with pytest.raises(UserError, match="circle"):
        resolve(circle)


def test_references_that_multiply_are_stopped():
    laughs = {"a0": "ha"} | {f"a{k + 1}": f"${{a{k}}}${{a{k}}}" for k in range(60)}
    with pytest.raises(UserError, match="references"):
        resolve(laughs)
    lists = {"a0": [1]} | {f"a{k + 1}": [f"${{a{k}}}", f"${{a{k}}}"] for k in range(60)}
    with pytest.raises(UserError, match="references"):
        resolve(lists)


def test_what_holds_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(UserError, match="references"):
        resolve({"a": loop})


# Into a recipe


def test_dimensions_come_from_the_shapes():
    wrong = config(model__node_embed_size=999, model__ipa__num_blocks=5, model__ipa__no_heads=3)
    assert recipe(wrong).model == recipe().model
    model = recipe().model
    assert (model.c_s, model.c_z, model.num_tokens) == (16, 8, 21)
    assert (model.edge_embed.feature_width, model.edge_embed.num_bins) == (8, 6)
    (stage,) = model.trunk.stages
    assert stage.model_dump() == parse_recipe(tiny_recipe()).model.trunk.stages[0].model_dump()


@pytest.mark.parametrize(
    ("edge", "changes"),
    [
        ({"self_condition": False}, {"model__edge_features__self_condition": False}),
        ({"embed_chain": True}, {"model__edge_features__embed_chain": True}),
        ({"embed_diffuse_mask": False}, {"model__edge_features__embed_diffuse_mask": False}),
    ],
)
def test_the_number_of_bins_is_found_whatever_else_is_embedded(edge, changes):
    widths = {"feature_width": 8, "num_bins": 9, **edge}
    found = recipe(config(**changes), model={"edge_embed": widths}).model.edge_embed
    assert found.model_dump() == {"self_condition": True, "embed_chain": False, "embed_diffuse_mask": True} | widths


def test_what_shapes_cannot_tell_comes_from_the_config():
    found = recipe(
        config(
            model__transformer_dropout=0.3, model__ipa__seq_tfmr_num_heads=4, model__ipa__dropout=0.1,
            interpolant__aatypes__train_extra_mask=0.2, interpolant__codesign_separate_t=False,
            experiment__training__rotation_loss_weights=0.5, data__sampler={"max_batch_size": 7},
            experiment__trainer={"accumulate_grad_batches": 2},
        )
    )  # fmt: skip
    (stage,) = found.model.trunk.stages
    settings = stage.overrides
    assert (settings["transformer_dropout"], settings["transformer_heads"], settings["dropout"]) == (0.3, 4, 0.1)
    assert (found.flow.extra_mask_share, found.flow.separate_times) == (0.2, False)
    assert (found.loss.rotation_weight, found.loss.auxiliary_weight) == (0.5, 0.25)
    assert (found.optimizer.lr, found.seed) == (0.0003, 123)
    assert found.data["loader"] == {"max_batch_size": 7}
    assert found.trainer.accumulate == 2


def test_quirks_are_on():
    found = recipe()
    assert found.sampler == SAMPLERS["multiflow_legacy"]
    assert found.flow.invert_transport
    assert found.flow.half_turn == "positive"
    assert found.flow.self_condition_share == 0.5
    assert recipe(config(interpolant__self_condition=False)).flow.self_condition_share == 0.0
    assert recipe(config(interpolant__min_t=0.02)).sampler.fixed_t == pytest.approx(0.98)
    plain = config(interpolant__aatypes__do_purity=False, interpolant__rots__sample_schedule="linear")
    assert (recipe(plain).sampler.token_step, recipe(plain).sampler.rotation_schedule) == ("plain", "linear")


def test_uniform_tokens():
    uniform = config(interpolant__aatypes__interpolant_type="uniform", interpolant__aatypes__do_purity=False)
    found = recipe(uniform, model={"num_tokens": 20})
    assert (found.flow.tokens, found.sampler.tokens, found.model.num_tokens) == ("uniform", "uniform", 20)


def test_an_empty_config_gives_the_defaults():
    found = recipe({}, model={"trunk": {"stages": [{"block": "ipa", "num_heads": 2, "transformer_layers": 1}]},
                              "node_embed": {}})  # fmt: skip
    assert found.sampler == SAMPLERS["multiflow_legacy"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"interpolant__trans__train_schedule": "vpsde"}, "interpolant.trans.train_schedule='vpsde'"),
        ({"interpolant__rots__sample_schedule": "cosine"}, "known: 'exp', 'linear'"),
        ({"interpolant__rots__sample_schedule": ["exp"]}, "known: 'exp', 'linear'"),
        ({"interpolant__rots__sample_schedule": {"a": 1}}, "known: 'exp', 'linear'"),
        ({"interpolant__sampling": {"do_sde": True}}, "interpolant.sampling.do_sde=True"),
        ({"interpolant__twisting__use": True}, "interpolant.twisting.use=True"),
        ({"model__symmetric": True}, "model.symmetric=True"),
        ({"model__aatype_pred": False}, "model.aatype_pred=False"),
        ({"interpolant__min_t": "${nowhere}"}, "min_t"),
        ({"interpolant__min_t": "soon"}, "min_t"),
        ({"interpolant__min_t": [1]}, "min_t"),
        ({"interpolant__aatypes__temp": "hot"}, "token_temperature"),
        ({"interpolant__aatypes__interpolant_type": "gaussian"}, "tokens"),
        ({"model__edge_features__self_condition": "maybe"}, "self_condition"),
        ({"model__edge_features__embed_chain": [1, 2]}, "embed_chain"),
        ({"model__transformer_dropout": 7}, "transformer_dropout"),
        ({"model__ipa__seq_tfmr_num_heads": 5}, "5"),
    ],
)
def test_settings_that_are_not_reproduced_are_refused_in_one_line(changes, says):
    with pytest.raises(UserError) as caught:
        recipe(config(**changes))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("odd", [{"model": 5}, {"interpolant": [1]}, {"experiment": None}, {"model": {"ipa": "x"}}])
def test_sections_of_another_kind_are_not_there(odd):
    assert recipe(config(interpolant__self_condition=True) | odd).sampler == SAMPLERS["multiflow_legacy"]


# And back


def test_a_config_survives_the_way_there_and_back():
    found = recipe(config(interpolant__aatypes__noise=5.0, experiment__training__t_normalize_clip=0.8))
    again = parse_recipe(to_recipe(to_config(found.model_dump(mode="json")), tensors()))
    assert again == found


def test_models_multiflow_cannot_hold_are_refused():
    stage = tiny_recipe()["model"]["trunk"]["stages"][0]
    for stages in ([stage, stage], [{**stage, "update_last_edge": True}], [{**stage, "update_edge": False}]):
        made = parse_recipe(tiny_recipe(model={"trunk": {"stages": stages}})).model_dump(mode="json")
        with pytest.raises(UserError, match="Multiflow"):
            to_config(made)
