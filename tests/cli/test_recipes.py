"""`python -m app recipes`, as typed."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from app.__main__ import cli
from app.config.compose import options
from app.config.overrides import RECIPES
from app.errors import UserError
from app.training import summary


def run(*arguments: str):
    return CliRunner().invoke(cli, ["recipes", *arguments], env={"COLUMNS": "250"}, catch_exceptions=True)


def test_the_list_names_every_recipe_with_its_purpose_and_cost():
    shown = run().stdout
    for name in options()["recipe"]:
        assert name in shown
        assert all(words in shown.replace("\n", " ") for words in summary.header(name))


def test_the_list_as_json():
    found = {one["name"]: one for one in json.loads(run("--json").stdout)}
    assert list(found) == options()["recipe"]
    legacy = found["multiflow_legacy"]
    assert legacy["parameters"] == legacy["multiflow_parameters"] == 21_786_309
    assert (legacy["blocks"], legacy["trunk"], legacy["esm"], legacy["head"]) == ({"ipa": 8}, "8 ipa", "none", "mlp")
    assert legacy["multiflow_weights"] == "all"
    assert found["tiny"]["multiflow_weights"] == "none"
    heavy = found["pairformer_heavy"]
    assert heavy["blocks"] == {"pairformer": 14, "ipa": 4}
    assert (heavy["trunk"], heavy["head"]) == ("12 pairformer, 4 ipa", "2 pairformer, mlp")
    assert heavy["multiflow_weights"] == "part"
    assert 0 < heavy["multiflow_parameters_taken"] < heavy["multiflow_parameters"]
    assert found["esm_pairs"]["esm"].endswith("node_and_edge")


def test_the_difference_of_two_recipes():
    rows = json.loads(run("diff", "multiflow_legacy", "pairformer_heavy", "--json").stdout)
    by_key = {row["key"]: (row["multiflow_legacy"], row["pairformer_heavy"]) for row in rows}
    assert by_key["flow.half_turn"] == ("positive", "exact")
    assert [stage["block"] for stage in by_key["model.trunk.stages"][1]] == ["pairformer", "ipa"]
    shown = run("diff", "multiflow_legacy", "pairformer_heavy").stdout
    assert "8 ipa" in shown and "12 pairformer, 4 ipa" in shown
    assert json.loads(run("diff", "tiny", "tiny", "--json").stdout) == []


def test_an_unknown_recipe_is_one_line():
    result = run("diff", "tiny", "tinyy")
    assert isinstance(result.exception, UserError)
    assert "did you mean tiny" in str(result.exception)


def test_a_recipe_that_is_not_valid_is_listed_as_such(tmp_path, monkeypatch):
    """One's own half-finished recipe must not hide the others."""
    broken = summary._model

    def model(name: str):
        if name == "tiny":
            raise UserError("model.trunk.stages: no stage updates the backbone")
        return broken(name)

    monkeypatch.setattr(summary, "_model", model)
    shown = run().stdout
    assert "not valid" in shown and "no stage updates the backbone" in shown and "pair_bias_light" in shown


def test_a_recipe_without_its_two_lines_is_told(tmp_path, monkeypatch):
    (tmp_path / "recipe").mkdir()
    text = "# @package _global_\n# Only one line.\n" + yaml.safe_dump({"name": "mine"})
    (tmp_path / "recipe" / "mine.yaml").write_text(text)
    monkeypatch.setattr(summary, "RECIPES", tmp_path)
    with pytest.raises(UserError, match=r"mine\.yaml: open it with two comment lines"):
        summary.header("mine")
    assert tmp_path != RECIPES
