from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.config.validate import parse
from app.errors import UserError


class Stage(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    block: Literal["ipa", "pairformer"]
    depth: int = Field(1, gt=0)


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    max_steps: int | None = None
    lr: float = 1e-4
    size: int | str = 1
    fast: bool = False
    checkpoint: bool | Literal["edge"] = False
    stages: list[Stage] = []
    first: Stage | None = None

    @model_validator(mode="after")
    def _check(self):
        if self.lr > 1:
            raise ValueError("lr is above 1:\ngive a smaller one")
        return self


def refusal(data, where="trainer"):
    with pytest.raises(UserError) as caught:
        parse(Settings, data, where)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_good_data_becomes_the_model():
    settings = parse(Settings, {"max_steps": 4, "stages": [{"block": "ipa"}]}, "trainer")
    assert settings.max_steps == 4
    assert settings.stages == [Stage(block="ipa")]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"max_steps": "abc"}, ["trainer.max_steps='abc'", "valid integer"]),
        ({"max_step": 1}, ["trainer.max_step is unknown", "did you mean max_steps?"]),
        ({"zzz": 1}, ["trainer.zzz is unknown", "known here: max_steps, lr, size, fast, checkpoint, stages, first"]),
        (
            {"stages": [{"depth": 0}]},
            ["trainer.stages.0.block is missing", "0.depth=0: wanted greater than 0"],
        ),
        ({"stages": [{"block": "flash"}]}, ["trainer.stages.0.block='flash'", "'ipa' or 'pairformer'"]),
        ({"stages": [{"block": "ipa", "depht": 1}]}, ["trainer.stages.0.depht", "did you mean depth?"]),
        ({"first": {"block": "ipa", "dept": 1}}, ["trainer.first.dept", "did you mean depth?"]),
        ({"first": 3}, ["trainer.first=3", "section"]),
        ({"size": [1]}, ["trainer.size=[1]: wanted a valid integer or a valid string"]),
        ({"fast": "maybe"}, ["trainer.fast='maybe': wanted true or false"]),
        ({"fast": [1]}, ["trainer.fast=[1]: wanted true or false"]),
        ({"checkpoint": "edges"}, ["trainer.checkpoint='edges': wanted true or false or 'edge'"]),
        ({"lr": 2}, ["trainer: lr is above 1: give a smaller one"]),
    ],
)
def test_every_fault_names_key_value_and_what_is_accepted(data, says):
    message = refusal(data)
    for words in says:
        assert words in message


def test_all_faults_at_once_and_at_the_top_level():
    message = refusal({"max_steps": "a", "lr": "b"}, where="")
    assert message.startswith("max_steps='a'")
    assert "; lr='b'" in message


def test_long_values_are_shortened():
    assert len(refusal({"max_steps": "x " * 1000})) < 200
