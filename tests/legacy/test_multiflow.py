"""Loading and resuming from Multiflow checkpoints, on small ones of our own."""

import pytest
import torch
import yaml

from app.errors import UserError
from app.legacy import multiflow
from app.legacy import multiflow_names as names
from tests.factories import noisy_batch, results, tiny_module, tiny_recipe
from tests.legacy.made_checkpoint import CONFIG, adamw, checkpoint, config, optimizer_state, write


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        multiflow.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# Loading


def test_weights_counters_and_mode(tmp_path):
    module = tiny_module()
    loaded = multiflow.load(write(tmp_path / "last.ckpt", checkpoint(module)))
    assert not loaded.module.training
    assert (loaded.epoch, loaded.global_step, loaded.ignored_keys) == (4, 77, [])
    batch = noisy_batch()
    for name, value in results(module.model(batch)).items():
        assert torch.equal(results(loaded.module.model(batch))[name], value)
    assert loaded.recipe == loaded.module.recipe.model_dump(mode="json")
    assert loaded.recipe["name"] == "multiflow_legacy"


@pytest.mark.parametrize(
    "stage",
    [
        {"depth": 1, "num_heads": 1, "num_qk_points": 1, "num_v_points": 5, "transformer_layers": 3},
        {"depth": 4, "num_heads": 4, "head_width": 3, "transformer_layers": 0},
    ],
)
def test_any_dimensions(tmp_path, stage):
    stages = [tiny_recipe()["model"]["trunk"]["stages"][0] | stage]
    module = tiny_module(model={"c_s": 24, "c_z": 12, "trunk": {"stages": stages}})
    loaded = multiflow.load(write(tmp_path / "last.ckpt", checkpoint(module)))
    assert loaded.module.recipe.model.trunk == module.recipe.model.trunk
    batch = noisy_batch()
    assert torch.equal(loaded.module.model(batch).pred_trans, module.model(batch).pred_trans)


def test_the_config_beside_it_serves_where_it_holds_none(tmp_path):
    made = checkpoint()
    del made["hyper_parameters"]["cfg"]
    path = write(tmp_path / "last.ckpt", made)
    assert "config.yaml" in refusal(path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    assert multiflow.load(path).module.recipe.optimizer.lr == 0.0003
    del made["hyper_parameters"]
    assert multiflow.load(write(path, made)).module.recipe.optimizer.lr == 0.0003


def test_the_config_within_wins_over_the_one_beside_it(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(experiment__optimizer__lr=0.5)))
    assert multiflow.load(write(tmp_path / "last.ckpt")).module.recipe.optimizer.lr == 0.0003


def test_nothing_of_the_environment_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/geheim")
    loaded = multiflow.load(write(tmp_path / "last.ckpt"))
    assert "geheim" not in repr(loaded.recipe)
    bad = checkpoint(cfg=config(experiment__optimizer__lr="${oc.env:HOME}"))
    message = refusal(write(tmp_path / "bad.ckpt", bad))
    assert "geheim" not in message
    assert "optimizer.lr" in message


def test_told_by_its_keys():
    assert multiflow.is_multiflow(checkpoint())
    assert not multiflow.is_multiflow({})
    assert not multiflow.is_multiflow({"state_dict": {"model.trunk.stages.0.0.norm.weight": torch.ones(1)}})
    assert not multiflow.is_multiflow({"state_dict": [1]})
    assert not multiflow.is_multiflow({"state_dict": {5: torch.ones(1)}})


# The optimizer


@pytest.mark.parametrize("shuffled", [False, True])
def test_each_moment_comes_to_its_own_parameter(tmp_path, shuffled):
    """Also where the state dict is in another order than ours: its order is that of the original's parameters."""
    made = checkpoint()
    if shuffled:
        made["state_dict"] = dict(reversed(made["state_dict"].items()))
        made["optimizer_states"] = [optimizer_state(made["state_dict"])]
    loaded = multiflow.load(write(tmp_path / "last.ckpt", made))
    optimizer = adamw(loaded.module, loaded.optimizer_state)
    theirs = dict(zip(made["state_dict"], made["optimizer_states"][0]["state"].values(), strict=True))
    for name, parameter in loaded.module.model.named_parameters():
        for key, value in theirs[f"model.{names.theirs(name)}"].items():
            assert torch.equal(optimizer.state[parameter][key], value)
    assert optimizer.param_groups[0]["lr"] == 3e-4


def test_without_an_optimizer_there_is_no_state(tmp_path):
    for states in ([], None):
        made = checkpoint() | {"optimizer_states": states}
        assert multiflow.load(write(tmp_path / "last.ckpt", made)).optimizer_state is None


def test_parameters_without_moments_have_none(tmp_path):
    made = checkpoint()
    del made["optimizer_states"][0]["state"][3]
    loaded = multiflow.load(write(tmp_path / "last.ckpt", made))
    assert len(loaded.optimizer_state["state"]) == len(made["state_dict"]) - 1
    adamw(loaded.module, loaded.optimizer_state)


# Leftovers


@pytest.mark.parametrize("trained", [False, True], ids=["weights only", "in the optimizer, too"])
@pytest.mark.parametrize("where", ["first", "last"])
def test_leftovers_of_the_torsion_head_are_reported_and_nothing_else(tmp_path, trained, where):
    made = checkpoint()
    more = {"model.torsion_pred.weight": torch.ones(3, 3), "model.trunk.torsion_net_0.bias": torch.ones(2)}
    state = made["state_dict"]
    made["state_dict"] = {**more, **state} if where == "first" else {**state, **more}
    made["optimizer_states"] = [optimizer_state(made["state_dict"] if trained else state)]
    loaded = multiflow.load(write(tmp_path / "last.ckpt", made))
    assert loaded.ignored_keys == list(more)
    moments = dict(
        zip(made["state_dict"] if trained else state, made["optimizer_states"][0]["state"].values(), strict=True)
    )
    for index, (name, _) in enumerate(loaded.module.model.named_parameters()):
        expected = moments[f"model.{names.theirs(name)}"]["exp_avg"]
        assert torch.equal(loaded.optimizer_state["state"][index]["exp_avg"], expected)


# Refusals


def test_all_that_does_not_fit_is_listed_at_once(tmp_path):
    made = checkpoint()
    state = made["state_dict"]
    del state["model.trunk.ipa_ln_0.weight"], state["model.aatype_pred_net.2.bias"]
    state["model.trunk.ipa_ln_1.weight"] = torch.ones(7)
    state["model.trunk.ipa_ln_7.weight"] = torch.ones(16)
    state["model.surprise.weight"] = torch.ones(1)
    message = refusal(write(tmp_path / "last.ckpt", made))
    for said in (
        "missing model.trunk.ipa_ln_0.weight",
        "missing model.aatype_pred_net.2.bias",
        "model.trunk.ipa_ln_1.weight has shape [7], expected [16]",
        "unexpected model.trunk.ipa_ln_7.weight",
        "unexpected model.surprise.weight",
    ):
        assert said in message
    assert message.count(";") == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.surprise": "text"}, "model.surprise"),
        ({"other.weight": torch.ones(1)}, "other.weight"),
        ({5: torch.ones(1)}, "5"),
        ({"model.trunk.ipa_0.linear_b.weight": torch.ones(4)}, "model.trunk.ipa_0.linear_b.weight has shape [4]"),
        ({"model.trunk.ipa_0.linear_b.weight": torch.ones(0, 8)}, "model.trunk.ipa_0.linear_b.weight has shape [0, 8]"),
        ({"model.trunk.ipa_0.linear_b.weight": None}, "model.trunk.ipa_0.linear_b.weight"),
        ({"model.edge_feature_net.edge_embedder.0.weight": torch.ones(8, 3)}, "num_bins"),
        ({"model.trunk.ipa_99999999.linear_b.weight": torch.ones(2, 8)}, "unexpected model.trunk.ipa_99999999"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_parameters_are_refused_in_one_line(tmp_path, changes, says):
    made = checkpoint()
    made["state_dict"] |= changes
    assert says in refusal(write(tmp_path / "last.ckpt", made))


@pytest.mark.parametrize("key", ["trunk.ipa_0.linear_b.weight", "edge_feature_net.linear_s_p.weight"])
def test_a_missing_parameter_that_tells_a_dimension_is_named(tmp_path, key):
    made = checkpoint()
    del made["state_dict"][f"model.{key}"]
    assert f"model.{key} is missing" in refusal(write(tmp_path / "last.ckpt", made))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epoch": "four"}, "epoch"),
        ({"global_step": [1]}, "global_step"),
        ({"hyper_parameters": [1, 2]}, "config.yaml"),
        ({"hyper_parameters": {"cfg": "text"}}, "config"),
        ({"optimizer_states": 5}, "optimizer"),
        ({"optimizer_states": [5]}, "optimizer"),
        ({"optimizer_states": [{"state": {}}]}, "optimizer"),
        ({"optimizer_states": [{"state": {}, "param_groups": [{"params": [0, 1]}]}]}, "optimizer"),
        ({"optimizer_states": [{"state": {}, "param_groups": [{"params": [0]}, {"params": [1]}]}]}, "optimizer"),
        ({"optimizer_states": [{"state": {0: {}}, "param_groups": [{"params": list(range(95))}]}]}, "optimizer"),
        ({"state_dict": {}}, "node_feature_net"),
        ({"state_dict": None}, "node_feature_net"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_checkpoints_are_refused_in_one_line(tmp_path, changes, says):
    assert says in refusal(write(tmp_path / "last.ckpt", checkpoint() | changes))


def test_moments_of_another_shape_are_refused(tmp_path):
    made = checkpoint()
    index = list(made["state_dict"]).index("model.trunk.ipa_ln_0.weight")
    made["optimizer_states"][0]["state"][index]["exp_avg_sq"] = torch.ones(3)
    assert "model.trunk.ipa_ln_0.weight" in refusal(write(tmp_path / "last.ckpt", made))


@pytest.mark.parametrize(
    "text",
    ["a: [1\n", "- 1\n", "", "a: !!python/object/apply:os.system ['touch canary']\n", "\x00\x01", "a: &x [*x]\n"],
)
def test_a_broken_config_beside_it(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = checkpoint()
    del made["hyper_parameters"]["cfg"]
    (tmp_path / "config.yaml").write_text(text)
    assert "config" in refusal(write(tmp_path / "last.ckpt", made))
    assert not (tmp_path / "canary").exists()


def test_a_config_that_is_not_reproduced_names_the_file(tmp_path):
    message = refusal(write(tmp_path / "last.ckpt", checkpoint(cfg=config(model__symmetric=True))))
    assert "model.symmetric=True" in message
