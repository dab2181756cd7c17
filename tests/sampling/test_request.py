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
PARTIAL = {"task": "partial", "out": "designs", "input": "1abc.pdb", "fix": ["A1-5"]}
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
        "partial": ["input=a b.pdb", "fix=[A10-35,B:1-20, C]"],
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


def test_lengths_of_several_chains_are_told_apart_from_others():
    assert Request(**UNCONDITIONAL | {"lengths": ["60+40", "80", " 5 + 6+7"]}).lengths == ["60+40", 80, "5+6+7"]
    for typed in ('lengths=["60+40",80]', "lengths=[60+40,80]"):
        config = compose("infer", ["ckpt=x.ckpt", "out=designs", typed])
        assert config["lengths"] == ["60+40", 80]


def test_what_is_sampled_in_partial_design_is_what_is_not_given():
    for what, task in {"sequence": "inverse_folding", "structure": "forward_folding", "both": "partial"}.items():
        assert Request(**PARTIAL | {"what": what}).sampled is Task(task)
    assert Request(**PARTIAL).sampled is Task.PARTIAL
    assert Request(**INVERSE).sampled is Task.INVERSE_FOLDING


def test_entries_of_fix_and_formats_come_as_they_are_typed():
    assert Request(**PARTIAL | {"fix": "A1-5,B 7".replace(" ", "")}).fix == ["A1-5", "B7"]
    assert Request(**PARTIAL | {"fix": [12, " A3 "]}).fix == ["12", "A3"]
    assert Request(**PARTIAL | {"formats": "mmcif"}).formats == ["mmcif"]
    assert Request(**PARTIAL | {"formats": ["pdb", "pdb"]}).formats == ["pdb"]


def test_the_longest_design_is_what_the_position_embeddings_span():
    assert MAX_RESIDUES == node_embed._POSITION_MAX_LEN == edge_embed._RELATIVE_MAX_LEN


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (UNCONDITIONAL | {"lengths": [60, 0]}, "lengths: 0 is outside.* 1 to 2056"),
        (UNCONDITIONAL | {"lengths": [2057]}, "lengths: 2057 is outside"),
        (UNCONDITIONAL | {"lengths": [-5]}, "lengths: -5 is outside"),
        (UNCONDITIONAL | {"lengths": []}, r"^lengths=\[\] is empty: give residues, as in lengths=\[60,80\]$"),
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
        (UNCONDITIONAL | {"lengths": ["60+0"]}, r"lengths: 60\+0 is outside.* 1 to 2056"),
        (UNCONDITIONAL | {"lengths": ["1500+1500"]}, r"lengths: 1500\+1500 is outside"),
        (UNCONDITIONAL | {"lengths": ["+".join("1" * 63)]}, "more than the 62 chains"),
        (UNCONDITIONAL | {"lengths": ["60-40"]}, r"lengths: '60-40' is none: .* as in 60\+40"),
        (UNCONDITIONAL | {"lengths": [True]}, "lengths: True is none"),
        (UNCONDITIONAL | {"lengths": ["60+"]}, r"lengths: '60\+' is none"),
        (UNCONDITIONAL | {"fix": ["A1"]}, "fix has no effect with task=unconditional"),
        (UNCONDITIONAL | {"temperature": 0}, "temperature=0: wanted greater than or equal to 0.001"),
        (UNCONDITIONAL | {"temperature": float("nan")}, "temperature=nan: wanted"),
        (UNCONDITIONAL | {"formats": ["pdb", "xyz"]}, "formats.1='xyz': wanted 'pdb' or 'mmcif'"),
        (UNCONDITIONAL | {"formats": []}, r"^formats=\[\] is empty: give pdb, mmcif or both$"),
        (PARTIAL | {"fix": []}, r"^fix=\[\] is empty: give what stays, as in fix=\[A10-35,B\], or another task$"),
        (PARTIAL | {"fix": ["A3", 1e5]}, "fix: an entry was read as the number 100000.0: .* colon, as in 1E:5"),
        (PARTIAL | {"fix": [None]}, "fix: None names no residues: give such as A10-35"),
        (PARTIAL | {"fix": None}, "fix is missing: task=partial needs fix=..."),
        (PARTIAL | {"input": None}, "input is missing: task=partial needs input=..."),
        (PARTIAL | {"what": "all"}, "what='all': wanted 'sequence', 'structure' or 'both'"),
        (PARTIAL | {"chains": "together"}, "chains has no effect with task=partial"),
        (
            PARTIAL | {"what": "structure", "temperature": 1},
            "temperature has no effect with task=partial what=structure",
        ),
        (INVERSE | {"chains": "both"}, "chains='both': wanted 'separate' or 'together'"),
    ],
)
def test_refused(request_, message):
    assert re.search(message, refusal(**request_))
