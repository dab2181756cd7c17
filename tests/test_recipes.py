"""The recipes that ship: YAML and code say the same, and all of them compose into something that runs."""

from pathlib import Path

import pytest
import torch
import yaml

from app.config.compose import compose
from app.flow.settings import FlowSettings
from app.losses.settings import LossSettings
from app.model.codesign import ModelSettings
from app.sampling import SAMPLERS
from app.training.module import CodesignModule
from app.training.recipe import CallbacksSettings, LoggerSettings, OptimizerSettings, TrainerSettings, parse_recipe
from app.training.schedule import ScheduleSettings
from app.training.validation_settings import ValidationSettings

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
NOT_OF_A_RECIPE = ("out", "resume", "weights", "weights_boltz", "use_ema", "environment")


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (RECIPES / group).glob("*.yaml"))


def read(name: str) -> dict:
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text())


def composed(*overrides: str) -> dict:
    """The recipe of a training run."""
    data = () if any(override.startswith("data=") for override in overrides) else ("data=structures", "data.path=DIR")
    config = compose("train", ["out=DIR", *data, *overrides])
    return {key: value for key, value in config.items() if key not in NOT_OF_A_RECIPE}


def plain(settings) -> dict:
    return settings.model_dump(mode="json")


def test_train_yaml_has_the_defaults_of_the_code_in_their_order():
    train = read("train")
    for section, settings in (
        ("flow", FlowSettings()),
        ("loss", LossSettings()),
        ("optimizer", OptimizerSettings()),
        ("validation", ValidationSettings()),
    ):
        assert train[section] == plain(settings)
        assert list(train[section]) == list(plain(settings))
    model = plain(ModelSettings(trunk={"stages": [{"block": "ipa"}]}))
    elsewhere = ("trunk", "esm", "head")
    assert train["model"].pop("trunk") == {"num_recycles": model["trunk"]["num_recycles"]}
    assert train["model"] == {key: value for key, value in model.items() if key not in elsewhere}
    assert train["model"]["node_embed"] == model["node_embed"]


@pytest.mark.parametrize("name", options("sampler"))
def test_samplers(name):
    assert read(f"sampler/{name}") == plain(SAMPLERS[name])
    assert list(read(f"sampler/{name}")) == list(plain(SAMPLERS[name]))


def test_every_sampler_has_its_file():
    assert options("sampler") == sorted(SAMPLERS)


@pytest.mark.parametrize("name", options("trainer"))
def test_trainers_differ_in_their_devices_and_how_they_share_a_run_only(name):
    several = {"accelerator": "gpu", "devices": "auto", "strategy": name}
    expected = TrainerSettings(**several if name in ("ddp", "fsdp") else {"accelerator": name})
    assert read(f"trainer/{name}") == plain(expected)


@pytest.mark.parametrize("name", options("schedule"))
def test_schedules(name):
    assert read(f"schedule/{name}") == plain(ScheduleSettings(**read(f"schedule/{name}")))
    assert (read(f"schedule/{name}") == plain(ScheduleSettings())) == (name == "constant")


@pytest.mark.parametrize("name", options("logger"))
def test_loggers(name):
    assert read(f"logger/{name}") == plain(LoggerSettings(kind=name))


def test_callbacks_and_what_the_model_chooses():
    assert read("callbacks/default") == plain(CallbacksSettings())
    model = plain(ModelSettings(trunk={"stages": [{"block": "ipa"}]}))
    assert read("model/esm/none") == model["esm"]
    assert read("model/head/mlp") == model["head"]


@pytest.mark.parametrize("recipe", options("recipe"))
def test_every_recipe_builds_a_model(recipe):
    made = parse_recipe(composed(f"recipe={recipe}"))
    assert made.name == recipe
    with torch.device("meta"):
        module = CodesignModule(made)
    assert sum(p.numel() for p in module.parameters()) > 0


GROUPS = ("model/trunk", "model/esm", "model/head", "sampler", "data", "trainer", "callbacks", "logger")


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_every_option_can_be_chosen(group, option):
    path = ["data.path=DIR"] if group == "data" and "path" in read(f"data/{option}") else []
    config = composed(f"{group}={option}", *path)
    parse_recipe(config)
    section = config
    for part in group.split("/"):
        section = section[part]
    chosen = {
        key: value
        for key, value in read(f"{group}/{option}").items()
        if key not in ("stages", "refine") and value != "???"
    }
    assert {key: section[key] for key in chosen} == chosen


def test_multiflow_legacy_is_multiflow():
    made = parse_recipe(composed("recipe=multiflow_legacy"))
    assert made.sampler == SAMPLERS["multiflow_legacy"]
    assert made.flow == FlowSettings(invert_transport=True, half_turn="positive")
    with torch.device("meta"):
        module = CodesignModule(made)
    assert len(list(module.parameters())) == 713
    assert sum(p.numel() for p in module.parameters()) == 21_786_309


def test_multiflow_legacy_is_the_default_and_others_are_mended():
    assert composed()["name"] == "multiflow_legacy"
    for recipe in options("recipe"):
        sampler = composed(f"recipe={recipe}")["sampler"]["name"]
        assert sampler == ("multiflow_legacy" if recipe == "multiflow_legacy" else "euler")


def test_the_calls_of_the_manual():
    legacy = ["recipe=multiflow_legacy", "data=structures", "data.path=DIR", "trainer=cpu", "trainer.max_steps=4"]
    config = compose("train", [*legacy, "out=DIR"])
    assert (config["out"], config["trainer"]["max_steps"], config["data"]["path"]) == ("DIR", 4, "DIR")
    for task in options("task"):
        assert compose("infer", ["ckpt=PATH", f"task={task}", "out=DIR"])["task"] == task


def test_a_stage_typed_on_the_command_line_has_its_blocks_defaults():
    (stage,) = composed("model.trunk.stages=[{block: ipa, depth: 2}]")["model"]["trunk"]["stages"]
    assert stage == {"block": "ipa", "depth": 2, "share_weights": False, "checkpoint": False, **read("block/ipa")}
    (stage,) = composed("model.trunk.stages.0.num_heads=4")["model"]["trunk"]["stages"]
    assert (stage["num_heads"], stage["depth"]) == (4, 8)


def test_recipes_name_no_code_and_no_resolver():
    for file in RECIPES.rglob("*.yaml"):
        text = file.read_text()
        assert "_target_" not in text
        assert "${oc." not in text
        assert "${now" not in text
