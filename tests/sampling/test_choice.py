import pytest
import yaml

from app.config.overrides import RECIPES
from app.errors import UserError
from app.sampling import SAMPLERS, SamplerSettings
from app.sampling.choice import OF_THE_MODEL, choose_sampler
from app.sampling.inputs import Task

LEGACY = SAMPLERS["multiflow_legacy"]
TRAINED = LEGACY.model_copy(update={"token_noise": 15.0, "min_t": 0.02, "token_temperature": 0.3})
NOTHING = dict.fromkeys(SamplerSettings.model_fields)
EULER = yaml.safe_load((RECIPES / "sampler/euler.yaml").read_text())


def choose(section=(), named=False, typed=None, task=Task.UNCONDITIONAL, trained=TRAINED):
    section = dict(section)
    typed = ([] if named else section) if typed is None else typed
    return choose_sampler(trained, NOTHING | section, named, typed, task)


def test_the_checkpoints_own_unless_something_is_said():
    assert choose() == TRAINED


def test_one_setting_changes_that_one_only():
    assert choose({"token_noise": 5}) == TRAINED.model_copy(update={"token_noise": 5.0})


def test_a_named_sampler_keeps_what_belongs_to_the_model():
    chosen = choose(EULER, named=True)
    for key in SamplerSettings.model_fields:
        of = TRAINED if key in OF_THE_MODEL else SAMPLERS["euler"]
        assert getattr(chosen, key) == getattr(of, key)
    assert chosen.name == "euler"


def test_what_is_typed_beats_both():
    chosen = choose(EULER | {"token_noise": 5, "sequence": "argmax"}, named=True, typed=["token_noise", "sequence"])
    assert (chosen.token_noise, chosen.sequence, chosen.token_temperature) == (5.0, "argmax", 0.3)


@pytest.mark.parametrize(
    ("section", "task", "message"),
    [
        ({"token_noise": 5}, Task.FORWARD_FOLDING, "sampler.token_noise has no effect with task=forward_folding"),
        ({"sequence": "argmax"}, Task.FORWARD_FOLDING, "sampler.sequence has no effect"),
        ({"translation_noise": 5}, Task.INVERSE_FOLDING, "sampler.translation_noise has no effect"),
        ({"half_turn": "exact"}, Task.INVERSE_FOLDING, "where the structure is given"),
        ({"fixed_t": 0.9}, Task.UNCONDITIONAL, "where nothing is given"),
        ({"given_tokens_as_one_hot": True}, Task.INVERSE_FOLDING, "sampler.given_tokens_as_one_hot has no effect"),
        ({"resample_unmasked": False}, Task.UNCONDITIONAL, "has no effect with sampler.token_step=purity"),
        ({"rotation_schedule": "linear", "rotation_rate": 5}, Task.UNCONDITIONAL, "rotation_rate has no effect"),
        ({"name": "mine"}, Task.UNCONDITIONAL, "sampler=NAME"),
        ({"token_noise": -1}, Task.UNCONDITIONAL, "sampler.token_noise=-1"),
        ({"tokens": "uniform"}, Task.UNCONDITIONAL, "token_step=plain"),
    ],
)
def test_refused(section, task, message):
    with pytest.raises(UserError, match=message):
        choose(section, task=task)
