"""Steps captured and replayed: designs of the same bits, and a way back where a step cannot be captured."""

import dataclasses
from contextlib import contextmanager

import pytest
import torch

from app.devices import NVIDIA
from app.errors import UserError
from app.sampling import prepared, sample
from app.sampling.graph import WARM_UP
from app.types import Prediction
from tests import cuda_graph
from tests.factories import tiny_model, tiny_recipe
from tests.sampling.made_inputs import UNCONDITIONAL
from tests.sampling.recorder import PLAIN, UNIFORM, every_sampler, every_task, given


@pytest.fixture
def graphs(monkeypatch) -> list[cuda_graph.Graph]:
    """The CPU has CUDA graphs; those that were made."""
    return cuda_graph.install(monkeypatch, "app.sampling.prepared")


def same(one, other):
    for name, value in vars(one).items():
        assert torch.equal(value, getattr(other, name)), name


@pytest.mark.parametrize("keep", [True, False])
@every_task
@every_sampler
def test_replays_make_the_same_designs(graphs, task, sampler, keep):
    """One capture serves all steps: nothing of the time is baked in, given residues and the last call included."""
    model, how = tiny_model(), {"task": task, "steps": 9, "sampler": sampler, "keep_path": keep, **given(task)}
    if task == "unconditional":
        how["lengths"] = [9, 6]
    plain = sample(model, **how)
    same(sample(prepared(model), **how), plain)
    (graph,) = graphs
    assert graph.replays == 9 - WARM_UP


def test_the_manifest_says_whether_they_served(graphs, run):
    _, manifest = run(**UNCONDITIONAL)
    assert manifest["cuda_graph"] is True
    _, manifest = run(**UNCONDITIONAL, cuda_graph=False)
    assert manifest["cuda_graph"] is False


@pytest.mark.parametrize("stale", [True, False])
def test_tokens_that_are_still_to_be_read_are_not_written_over(graphs, stale):
    """Those before the last step, and those that a design ends with: a replay writes over the memory of its point."""
    restless = {"stale_final_call": stale, "sequence": "sampled", "tokens": "uniform", "token_noise": 20.0}
    how = {"steps": 9, "lengths": [40], "sampler": PLAIN.model_copy(update=restless)}
    model = tiny_model()
    plain = sample(model, **how)
    before, after, designs = plain.path_aatypes[:, -3:].unbind(1)
    assert not before.equal(after) and designs.equal(after)
    same(sample(prepared(model), **how), plain)


def test_an_estimate_that_lies_in_the_point_is_not_written_over_with_the_next(graphs):
    model = tiny_model()

    def keeps_its_tokens(batch):
        return dataclasses.replace(model(batch), pred_aatypes=batch.aatypes_t)

    how = {"steps": 9, "lengths": [40], "sampler": UNIFORM}
    plain = sample(keeps_its_tokens, **how)
    assert plain.clean_aatypes[:, :-1].equal(plain.path_aatypes[:, :-2])
    same(sample(prepared(keeps_its_tokens), **how), plain)
    assert len(graphs) == 1


def test_the_step_that_is_captured_has_run_as_it_was_chosen_and_compiled(graphs, monkeypatch):
    """What happens in a first call and in the first one compiled cannot be captured; other threads may go on."""
    seen = []

    def compiler(function, **how):
        def compiled(*given, **more):
            seen.append("compiled, captured" if capturing else "compiled")
            return function(*given, **more)

        return compiled

    @contextmanager
    def capture(graph, **how):
        asked.append(how)
        capturing.append(graph)
        with cuda_graph.capture(graph):
            yield
        capturing.clear()

    capturing, asked, model = [], [], tiny_model()
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    how = {"steps": 5, "lengths": [9]}
    same(sample(prepared(model, compile=True, cuda_graph=True), **how), sample(model, **how))
    assert seen == ["compiled", "compiled, captured"]
    assert asked == [{"capture_error_mode": "thread_local"}]


def test_each_batch_has_a_graph_of_its_own(graphs):
    model = tiny_model()
    ready = prepared(model, cuda_graph=True)
    for length in (9, 12):
        same(sample(ready, steps=5, lengths=[length]), sample(model, steps=5, lengths=[length]))
    assert len(graphs) == 2


def test_what_cannot_be_captured_runs_as_it_is_and_says_so_once(graphs, caplog):
    model = tiny_model()

    def looks(batch):
        assert bool((batch.res_mask > 0).any())
        return model(batch)

    ready = prepared(looks)
    for _ in range(2):
        same(sample(ready, steps=5, lengths=[9]), sample(model, steps=5, lengths=[9]))
    (warning,) = caplog.records
    assert "cuda_graph: a step cannot be captured" in warning.message and "not permitted" in warning.message
    assert len(graphs) == 1


def test_out_of_memory_is_not_taken_for_a_refusal(graphs):
    """So that the run can halve the batch."""
    calls = []

    def grows(batch):
        calls.append(0)
        if len(calls) > WARM_UP:
            raise torch.OutOfMemoryError("out of memory")
        return Prediction(batch.trans_t, batch.rotmats_t, batch.aatypes_sc, batch.aatypes_t)

    with pytest.raises(torch.OutOfMemoryError):
        sample(prepared(grows), steps=5, lengths=[9])


def test_models_that_no_graph_can_hold_run_without(graphs):
    stage = tiny_recipe()["model"]["trunk"]["stages"][0] | {"transformer_dropout": {"train": 0.1, "infer": 0.5}}
    assert not prepared(tiny_model(trunk={"stages": [stage]})).cuda_graph
    with pytest.raises(UserError, match="drops out in inference"):
        prepared(tiny_model(trunk={"stages": [stage]}), cuda_graph=True)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@every_task
@every_sampler
def test_on_a_gpu_replays_make_the_same_designs_and_nothing_waits(task, sampler, precision, caplog):
    model, how = tiny_model().to(NVIDIA), {"task": task, "steps": 9, "sampler": sampler, **given(task)}
    plain = sample(prepared(model, cuda_graph=False, precision=precision), **how)

    def on_step(call):  # from the capture on until the last call
        torch.cuda.set_sync_debug_mode({WARM_UP + 1: "error", 8: "default"}.get(call, torch.cuda.get_sync_debug_mode()))

    try:
        same(sample(prepared(model, cuda_graph=True, precision=precision), on_step=on_step, **how), plain)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not caplog.records
