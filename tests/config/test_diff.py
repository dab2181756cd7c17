import math

import pytest

from app.config.diff import ABSENT, differences, merge
from app.errors import UserError

BASE = {"seed": 1, "model": {"trunk": {"stages": [{"block": "ipa", "depth": 8}]}, "esm": None}, "lr": math.nan}


def test_differences_name_leaves():
    new = {"seed": 2, "model": {"trunk": {"stages": [{"block": "ipa", "depth": 4}]}, "esm": None}, "more": {}}
    assert differences(BASE, new) == [
        ("seed", 1, 2),
        ("model.trunk.stages.0.depth", 8, 4),
        ("lr", BASE["lr"], ABSENT),
        ("more", ABSENT, {}),
    ]
    assert differences(BASE, BASE) == []
    assert repr(ABSENT) == "(absent)"


def test_differences_tell_types_and_list_lengths_apart():
    assert differences({"a": 1}, {"a": True}) == [("a", 1, True)]
    assert differences({"a": [1, 2]}, {"a": [1]}) == [("a", [1, 2], [1])]
    assert differences({"a": {}}, {"a": None}) == [("a", {}, None)]


def test_merge_sets_keys_and_leaves_its_input_alone():
    merged = merge(BASE, {"seed": 5, "model.trunk.stages.0.depth": 2, "model": {"esm": "8m"}})
    assert merged["seed"] == 5
    assert merged["model"] == {"trunk": {"stages": [{"block": "ipa", "depth": 2}]}, "esm": "8m"}
    assert BASE["model"]["trunk"]["stages"][0]["depth"] == 8
    assert BASE["model"]["esm"] is None


def test_what_differs_can_be_merged_in():
    new = merge(BASE, {"seed": 3, "model.trunk.stages": []})
    assert merge(BASE, {key: value for key, _, value in differences(BASE, new)})["model"] == new["model"]


def test_a_section_can_be_switched_off_but_not_made_a_value():
    assert merge(BASE, {"model.trunk": None})["model"]["trunk"] is None
    with pytest.raises(UserError, match=r"model\.trunk is a section.*stages"):
        merge(BASE, {"model.trunk": 3})


@pytest.mark.parametrize("key", ["sead", "model.trunk.stages.1", "model.trunk.stages.x", "seed.x", "model.x.y"])
def test_unknown_keys_are_refused(key):
    with pytest.raises(UserError, match=key):
        merge(BASE, {key: 1})
    with pytest.raises(UserError, match=r"model\.nothing"):
        merge(BASE, {"model": {"nothing": 1}})
