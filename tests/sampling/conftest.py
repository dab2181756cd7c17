import json

import pytest

from app.sampling import SAMPLERS
from app.sampling.request import Request
from app.sampling.run import generate
from tests.factories import tiny_model
from tests.sampling.made_inputs import STEPS, UNCONDITIONAL
from tests.sampling.runs import Counting


@pytest.fixture
def run(tmp_path):
    """generate() into a new folder each time -> (outcome, manifest)."""
    count = iter(range(100))

    def go(model=None, sampler="euler", **request):
        out = request.pop("out", tmp_path / f"out{next(count)}")
        request = Request(**{"steps": STEPS, "seed": 3, "out": out, "progress_bar": False} | request)
        outcome = generate(model or tiny_model(), request, SAMPLERS[sampler])
        return outcome, json.loads((out / "manifest.json").read_text())

    return go


@pytest.fixture
def again(run, tmp_path):
    """The same run in the same folder -> (what the model was shown, manifest)."""

    def go(model=None, **changes):
        model = model or Counting()
        _, manifest = run(model, **UNCONDITIONAL | {"out": tmp_path / "out"} | changes)
        return model, manifest

    return go
