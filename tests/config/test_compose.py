"""The command line against a small recipe tree of the test's own."""

import os

import pytest

from app.config.compose import chosen_groups, compose, typed_overrides
from app.errors import UserError

TREE = {
    "train.yaml": """
        defaults:
          - _self_
          - model/trunk: ipa
          - data: demo
          - trainer: auto
          - logger: [csv]
          - recipe: null
        seed: 1
        out: ???
        name: null
        again: ${seed}
    """,
    "infer.yaml": "defaults: [_self_, {task: unconditional}]\nckpt: ???\nlengths: [60]\nsteps: 100\nout: ???\n",
    "task/unconditional.yaml": "temperature: 1.0",
    "model/trunk/ipa.yaml": "stages: [{block: ipa, depth: 8}]",
    "model/trunk/pairformer.yaml": "stages: [{block: pairformer, depth: 2}, {block: ipa, depth: 8}]",
    "data/demo.yaml": "path: null\ncache_dir: null",
    "data/structures.yaml": "path: ???\ncache_dir: ${.path}/cache",
    "trainer/auto.yaml": "max_steps: 1000\nprecision: 32-true",
    "trainer/cpu.yaml": "defaults: [auto, _self_]\nmax_steps: 10",
    "logger/csv.yaml": "csv: {flush_every: 5}",
    "logger/tensorboard.yaml": "tensorboard: {level: 1}",
    "recipe/heavy.yaml": """
        # @package _global_
        defaults:
          - override /model/trunk: pairformer
        trainer:
          precision: bf16-mixed
    """,
}


@pytest.fixture
def recipes(tmp_path):
    for name, text in TREE.items():
        file = tmp_path / "recipes" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        file.write_text("\n".join(line[indent:] for line in lines) + "\n")
    return tmp_path / "recipes"


def refusal(recipes, *overrides, root="train"):
    with pytest.raises(UserError) as caught:
        compose(root, overrides, recipes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_plain_resolved_dict(recipes):
    config = compose("train", ["out=runs/a", "seed=7"], recipes)
    assert config == {
        "seed": 7,
        "out": "runs/a",
        "name": None,
        "again": 7,
        "model": {"trunk": {"stages": [{"block": "ipa", "depth": 8}]}},
        "data": {"path": None, "cache_dir": None},
        "trainer": {"max_steps": 1000, "precision": "32-true"},
        "logger": {"csv": {"flush_every": 5}},
    }
    assert type(config) is dict
    assert type(config["model"]["trunk"]["stages"]) is list


def test_a_recipe_beats_the_defaults_and_the_command_line_beats_the_recipe(recipes):
    heavy = compose("train", ["out=x", "recipe=heavy", "trainer=cpu"], recipes)
    assert [stage["block"] for stage in heavy["model"]["trunk"]["stages"]] == ["pairformer", "ipa"]
    assert heavy["trainer"] == {"max_steps": 10, "precision": "bf16-mixed"}
    typed = compose("train", ["model/trunk=ipa", "trainer.precision=32-true", "recipe=heavy", "out=x"], recipes)
    assert [stage["block"] for stage in typed["model"]["trunk"]["stages"]] == ["ipa"]
    assert typed["trainer"]["precision"] == "32-true"


def test_the_calls_of_the_manual(recipes):
    train = ["recipe=heavy", "data=structures", "data.path=DIR", "trainer=cpu", "trainer.max_steps=4", "out=DIR"]
    config = compose("train", train, recipes)
    assert config["trainer"]["max_steps"] == 4
    assert config["data"] == {"path": "DIR", "cache_dir": "DIR/cache"}
    assert typed_overrides(train, recipes) == {"data.path": "DIR", "trainer.max_steps": 4, "out": "DIR"}
    assert chosen_groups(train, recipes) == {"recipe": "heavy", "data": "structures", "trainer": "cpu"}
    infer = compose("infer", ["ckpt=a.ckpt", "task=unconditional", "lengths=[60,80]", "steps=50", "out=DIR"], recipes)
    assert (infer["lengths"], infer["steps"], infer["task"]) == ([60, 80], 50, {"temperature": 1.0})


@pytest.mark.parametrize(
    "path",
    ["my runs/a=1,b", "[x]{y}(z)", "it's", 'a "b" c', "$HOME/x", "größe/å", "~/x", "a:b", "C:\\x\\", "1", "true", " x"],
)
def test_paths_are_taken_as_typed(recipes, path):
    config = compose("train", [f"out={path}", "data=structures", f"data.path={path}"], recipes)
    assert config["out"] == path
    assert config["data"] == {"path": path, "cache_dir": f"{path}/cache"}
    assert typed_overrides([f"out={path}"], recipes) == {"out": path}


def test_paths_quoted_for_hydra_null_and_empty(recipes):
    assert compose("train", ["out='a b'"], recipes)["out"] == "a b"
    assert typed_overrides(["data.path=null"], recipes) == {"data.path": None}
    assert "out=PATH" in refusal(recipes, "out=")


def test_several_options_of_a_group(recipes):
    config = compose("train", ["out=x", "logger=[csv,tensorboard]"], recipes)
    assert list(config["logger"]) == ["csv", "tensorboard"]
    assert "wandb" in refusal(recipes, "out=x", "logger=[csv,wandb]")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["recipe=hevy"], ["recipe=hevy", "did you mean heavy?"]),
        (["data=nothing"], ["data=nothing", "demo, structures"]),
        (["data=null"], ["data=null", "demo, structures"]),
        (["sed=1"], ["unknown key sed", "did you mean seed?"]),
        (["max_steps=4"], ["did you mean trainer.max_steps?"]),
        (["trainer.max_stps=4"], ["trainer.max_stps", "did you mean max_steps?"]),
        (["trainer.zzz=4"], ["trainer has max_steps, precision"]),
        (["model.trunk.stages.0.width=4"], ["model.trunk.stages.0 has block, depth"]),
        (["seed.deep=4"], ["seed is a value"]),
        (["hydra.run.dir=elsewhere"], ["unknown key hydra.run.dir"]),
        (["hydra/launcher=basic"], ["hydra/launcher"]),
        (["+seed=1"], ["+seed=1"]),
        (["++seed=1"], ["++seed=1"]),
        (["~seed"], ["~seed"]),
        (["data=demo", "data=structures"], ["data is given twice"]),
        (["seed=1", "seed=1"], ["seed is given twice"]),
        (["seed"], ["'seed'", "key=value"]),
        (["seed =1"], ["'seed '", "key=value"]),
        (["--help"], ["'--help'", "key=value"]),
        (["data@train=demo"], ["data@train"]),
        (["seed=1,2"], ["seed=1,2", "[1,2]"]),
        (["seed=range(1,3)"], ["seed=range(1,3)"]),
        (["seed=[1"], ["seed=[1"]),
        (["name=a=b"], ["name=a=b", "quote"]),
        (["seed=1\n2"], ["seed"]),
        (["data=structures"], ["data.path=..."]),
        (["seed=???"], ["seed=..."]),
        (["name=${nothing}"], ["name=${nothing}", "'nothing' not found"]),
        (["name=${again}", "again=${name}"], ["name", "ecursive"]),
        (["name=${oc.env:HOME}"], ["${oc.env:HOME}"]),
        (["name=${now:%Y}"], ["${now:%Y}"]),
        (["name=${${name}.env:HOME}"], ["name="]),
        (["name={a: ${oc.env:HOME}}"], ["name.a=${oc.env:HOME}"]),
        (["name='${seed'"], ["name=${seed"]),
        (["task=unconditional"], ["task", "model/trunk"]),
        (["trainer.max_steps=${data}", "data.path=${trainer}"], ["circle"]),
        (["model.trunk=pairformer"], ["model/trunk=pairformer"]),
        (["model.trunk=5"], ["model.trunk", "stages"]),
        (["model={trunk: {stages: []}}", "model.trunk.stages=[1]"], ["no effect"]),
        (["model.trunk.stages=[1]", "model=null"], ["model.trunk.stages has no effect"]),
    ],
)
def test_refusals_are_one_line_and_name_the_cure(recipes, overrides, says):
    message = refusal(recipes, "out=x", *overrides)
    for words in says:
        assert words in message


def test_a_recipe_may_add_to_a_chosen_option_but_not_undo_it(recipes):
    (recipes / "recipe/inline.yaml").write_text(
        "# @package _global_\nmodel: {trunk: {stages: [{block: ipa, depth: 3}]}}\ntrainer: {precision: bf16-mixed}\n"
    )
    config = compose("train", ["out=x", "recipe=inline", "trainer=cpu"], recipes)
    assert config["trainer"] == {"max_steps": 10, "precision": "bf16-mixed"}
    message = refusal(recipes, "out=x", "recipe=inline", "model/trunk=pairformer")
    assert "model/trunk=pairformer has no effect on model.trunk.stages" in message
    assert "model.trunk.stages=..." in message
    both = ["out=x", "recipe=inline", "model/trunk=pairformer", "model.trunk.stages=[]"]
    assert compose("train", both, recipes)["model"]["trunk"]["stages"] == []


def test_the_environment_is_not_read(recipes, monkeypatch):
    monkeypatch.setenv("SECRET", "geheim")
    for text in ("${oc.env:SECRET}", "\\${oc.env:SECRET}", "a ${seed} ${oc.env:SECRET}"):
        assert "geheim" not in refusal(recipes, f"out={text}")
    (recipes / "data/demo.yaml").write_text("path: ${oc.env:SECRET}\n")
    assert "data.path=${oc.env:SECRET}" in refusal(recipes, "out=x")


def test_missing_values_are_named_together_or_left(recipes):
    assert "out=... data.path=..." in refusal(recipes, "data=structures")
    config = compose("train", ["data=structures"], recipes, partial=True)
    assert (config["out"], config["data"]) == ("???", {"path": "???", "cache_dir": "???"})


def test_references_between_settings_are_followed(recipes):
    assert compose("train", ["out=runs/${seed}", "seed=3"], recipes)["out"] == "runs/3"


def test_lists_are_replaced_and_their_entries_can_be_set(recipes):
    config = compose("train", ["out=x", "model.trunk.stages.0.depth=3"], recipes)
    assert config["model"]["trunk"]["stages"] == [{"block": "ipa", "depth": 3}]
    config = compose("train", ["out=x", "model.trunk.stages=[{block: pairformer, depth: 1}]"], recipes)
    assert config["model"]["trunk"]["stages"] == [{"block": "pairformer", "depth": 1}]


def test_a_broken_recipe_is_one_line(recipes):
    (recipes / "recipe/broken.yaml").write_text("a: [1\nb: 2\n")
    assert "broken" in refusal(recipes, "out=x", "recipe=broken")
    (recipes / "recipe/lost.yaml").write_text("# @package _global_\ndefaults: [{override /model/trunk: gone}]\n")
    assert "gone" in refusal(recipes, "out=x", "recipe=lost")
    with pytest.raises(UserError, match="checkout"):
        compose("train", [], recipes / "absent")


def test_files_that_are_gone_before_they_are_looked_at_are_let_be(recipes):
    """An editor marks a file that it has open by a link to nothing."""
    before = compose("train", ["out=x"], recipes)
    (recipes / ".#train.yaml").symlink_to("me@here.1")
    assert compose("train", ["out=x"], recipes) == before


def test_what_has_changed_is_read_again(recipes):
    compose("train", ["out=x"], recipes)
    file = recipes / "train.yaml"
    file.write_text(file.read_text() + "\nadded: 3\n")
    assert compose("train", ["out=x"], recipes)["added"] == 3


def test_nothing_is_written(recipes, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    compose("train", ["out=x"], recipes)
    assert os.listdir(work) == []


def test_a_mistyped_group_is_suggested(recipes):
    with pytest.raises(UserError, match="unknown key recpie: did you mean recipe"):
        compose("train", ["recpie=small"], recipes)
