"""Steps captured and replayed: designs of the same bits, and a way back where a step cannot be captured."""

import sys

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
from tests.sampling.recorder import every_sampler, every_task, given


@pytest.fixture
def graphs(monkeypatch) -> list[cuda_graph.Graph]:
    """The CPU has CUDA graphs; those that were made."""
    monkeypatch.setattr(sys.modules["app.sampling.prepared"], "has_cuda_graphs", lambda device: True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", cuda_graph.Graph)
    monkeypatch.setattr(torch.cuda, "graph", cuda_graph.capture)
    monkeypatch.setattr(cuda_graph.Graph, "made", [])
    return cuda_graph.Graph.made


def same(one, other):
    for name in ("path_trans", "path_rotmats", "path_aatypes", "clean_trans", "clean_rotmats", "clean_aatypes"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


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
