"""What no step changes is worked out once, and the designs are those of a model that works it out every time."""

import pytest
import torch

from app.sampling import sample
from tests.factories import tiny_model
from tests.model.esm.made_esm import write_esm
from tests.sampling.recorder import every_task, given


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    esm = {"kind": "esm2", "name": str(write_esm(tmp_path_factory.mktemp("esm") / "tiny"))}
    return {"without": tiny_model(), "with": tiny_model(esm=esm)}


@pytest.mark.parametrize("language", ["with", "without"])
@every_task
def test_it_changes_nothing(models, task, language):
    model = models[language]
    once, every_time = (sample(one, task=task, steps=5, **given(task)) for one in (model, lambda batch: model(batch)))
    for name in ("path_trans", "path_rotmats", "path_aatypes", "clean_aatypes"):
        assert torch.equal(getattr(once, name), getattr(every_time, name)), name


@every_task
def test_it_is_worked_out_once(models, task):
    model, given_to_it = models["without"], []
    hook = model.register_forward_pre_hook(
        lambda module, args, named: given_to_it.append(named["fixed"]), with_kwargs=True
    )
    sample(model, task=task, steps=5, **given(task))
    hook.remove()
    assert len(given_to_it) == 5 and all(fixed is given_to_it[0] for fixed in given_to_it)
