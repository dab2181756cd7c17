import re

import pytest

from app.config.compose import compose
from app.config.validate import parse
from app.environment import EnvironmentSettings
from app.errors import UserError
from app.model import edge_embed, node_embed
from app.model.esm.settings import LanguageHere
from app.ops.settings import KernelSettings
from app.sampling.inputs import Task
from app.sampling.request import MAX_RESIDUES, Request

UNCONDITIONAL = {"task": "unconditional", "out": "designs", "lengths": [60, 80]}
INVERSE = {"task": "inverse_folding", "out": "designs", "input": "1abc.pdb"}


def refusal(**changes):
    with pytest.raises(UserError) as caught:
        parse(Request, changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_recipe_gives_every_key_and_the_task_its_own():
    for task, own in {
        "unconditional": ["lengths=[60,80]"],
        "forward_folding": ["input=a b.pdb"],
        "inverse_folding": ["input=a b.pdb"],
    }.items():
        config = compose("infer", [f"task={task}", "ckpt=x.ckpt", "out=a=b", *own])
        assert set(config) == {*Request.model_fields, "sampler", "esm", "kernels", "environment"}
        assert parse(LanguageHere, config["esm"]) == LanguageHere()
        assert set(config.pop("sampler").values()) == set(config.pop("esm").values()) == {None}
        assert parse(KernelSettings, config.pop("kernels")) == KernelSettings()
        assert parse(EnvironmentSettings, config.pop("environment")) == EnvironmentSettings()
        request = parse(Request, config)
        assert request.task is Task(task)
        assert str(request.out) == "a=b"
        assert (request.input is None) == (task == "unconditional")


def test_the_defaults_are_those_of_the_recipe():
    config = compose("infer", ["ckpt=x.ckpt", "out=designs", "lengths=[60,80]"])
    del config["sampler"], config["esm"], config["kernels"], config["environment"]
    assert parse(Request, config) == Request(**UNCONDITIONAL, ckpt="x.ckpt", samples_per_length=1)


def test_one_length_needs_no_brackets():
    assert Request(**UNCONDITIONAL | {"lengths": 60}).lengths == [60]


def test_the_longest_design_is_what_the_position_embeddings_span():
    assert MAX_RESIDUES == node_embed._POSITION_MAX_LEN == edge_embed._RELATIVE_MAX_LEN


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (UNCONDITIONAL | {"lengths": [60, 0]}, "lengths: 0 is outside.* 1 to 2056"),
        (UNCONDITIONAL | {"lengths": [2057]}, "lengths: 2057 is outside"),
        (UNCONDITIONAL | {"lengths": [-5]}, "lengths: -5 is outside"),
        (UNCONDITIONAL | {"lengths": []}, "lengths"),
        (UNCONDITIONAL | {"lengths": None}, "lengths is missing: .*lengths=..."),
        (UNCONDITIONAL | {"input": "x"}, "input has no effect with task=unconditional.*leave it out"),
        (UNCONDITIONAL | {"samples": 2}, "samples has no effect with task=unconditional"),
        (UNCONDITIONAL | {"steps": 1}, "steps=1: wanted greater than or equal to 2"),
        (UNCONDITIONAL | {"seed": -1}, "seed=-1"),
        (UNCONDITIONAL | {"samples_per_length": 0}, "samples_per_length=0"),
        (UNCONDITIONAL | {"device": "tpu"}, "device='tpu': wanted 'auto', 'cpu', 'mps' or 'cuda'"),
        (UNCONDITIONAL | {"task": "docking"}, "task='docking': wanted 'unconditional', "),
        (UNCONDITIONAL | {"length": 5}, "length is unknown: did you mean lengths"),
        (INVERSE | {"lengths": [60]}, "lengths has no effect with task=inverse_folding.*leave it out"),
        (INVERSE | {"samples_per_length": 3}, "samples_per_length has no effect"),
        (INVERSE | {"input": None}, "input is missing: task=inverse_folding needs input=..."),
        (INVERSE | {"chains": "both"}, "chains='both': wanted 'separate' or 'together'"),
    ],
)
def test_refused(request_, message):
    assert re.search(message, refusal(**request_))
