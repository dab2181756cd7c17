"""A run says what it asks of a checkpoint that this was never trained for."""

import pytest

from app.sampling.designs import Design
from app.sampling.request import Request
from app.training.recipe import parse_recipe
from app.training.untrained import untrained
from tests.factories import tiny_recipe

ONE, TWO = Design("x", 9, 0), Design("x", 9, 0, chain_lengths=(4, 5))
INPUT = {"out": "x", "input": "y.pdb"}
TASKS = {
    "unconditional": {"out": "x", "lengths": [9]},
    "forward_folding": INPUT,
    "inverse_folding": INPUT,
    "partial": INPUT | {"fix": ["A"], "what": "both"},
}


def told(task, design=ONE, data=None, what=None, **flow):
    recipe = parse_recipe(tiny_recipe(flow=flow) | ({"data": data} if data else {}))
    request = Request(task=task, **TASKS[task] | ({"what": what} if what else {}))
    return untrained(recipe, request, [design])


def test_what_it_was_trained_for_goes_without_a_word():
    for task in ("unconditional", "forward_folding", "inverse_folding"):
        assert told(task) == []
    assert told("partial", partial={"probability": 0.5}) == []


@pytest.mark.parametrize(
    ("task", "flow", "says"),
    [
        ("partial", {}, "task=partial what=both: with flow.partial.probability=0"),
        ("forward_folding", {"separate_times": False}, "task=forward_folding: with flow.separate_times=false"),
        ("inverse_folding", {"separate_times": False}, "task=inverse_folding: with flow.separate_times=false"),
        ("inverse_folding", {"corrupt_tokens": False}, "task=inverse_folding: with flow.corrupt_tokens=false"),
        ("forward_folding", {"corrupt_rotations": False}, "task=forward_folding: without flow.corrupt_translations"),
    ],
)
def test_each_lack_is_named(task, flow, says):
    (warning,) = told(task, **flow)
    assert warning.startswith("this checkpoint (tiny) was not trained for ") and says in warning


def test_every_lack_of_a_task_is_named():
    warnings = told("partial", what="sequence", separate_times=False)
    assert len(warnings) == 2 and all("task=partial what=sequence" in warning for warning in warnings)
    assert told("unconditional", separate_times=False) == []


@pytest.mark.parametrize(
    ("data", "known"),
    [
        ({"kind": "demo"}, True),
        ({"kind": "structures", "path": "x"}, True),
        ({"kind": "structures", "path": "x", "chains": "together"}, False),
        ({"kind": "multiflow", "path": "x", "filter": {"num_chains": [1]}}, True),
        ({"kind": "multiflow", "path": "x", "filter": {"num_chains": [1, 2]}}, False),
        ({"kind": "multiflow", "path": "x", "filter": {"num_chains": None}}, False),
        ({"kind": "multiflow"}, False),  # of a checkpoint of Multiflow's own, which does not tell
    ],
)
def test_several_chains_where_the_data_were_single_ones(data, known):
    assert told("unconditional", ONE, data) == []
    assert [
        warning.endswith("several chains: its data were single ones") for warning in told("unconditional", TWO, data)
    ] == [True] * known
