"""What no step changes is worked out once, and the designs are those of a model that works it out every time."""

import pytest
import torch

from app.sampling import sample
from tests.factories import tiny_model
from tests.memory import NoReadBack
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


def test_a_language_model_reads_nothing_back_between_steps(models):
    """Its tokens are laid out before; within the loop they are made on the device."""
    watch = NoReadBack()

    def on_step(call):
        if call == 1:
            watch.__enter__()
        if call == 4:
            watch.__exit__(None, None, None)

    sample(models["with"], steps=5, keep_path=False, lengths=[9, 6], on_step=on_step)


def test_the_language_model_reads_a_given_sequence_once(models, monkeypatch):
    language, calls = models["with"].esm.language, []
    run = language._run
    monkeypatch.setattr(language, "_run", lambda *arguments: (calls.append(1), run(*arguments))[1])
    sample(models["with"], task="forward_folding", steps=5, **given("forward_folding"))
    assert len(calls) <= 1  # none where an earlier run had the same
    sample(models["with"], steps=5, lengths=[9])
    assert len(calls) >= 5
