"""Sampling with a language model: it looks at nothing on the host, and reads a given sequence once."""

import sys

import pytest
import torch

from app.devices import NVIDIA
from app.sampling import prepared, sample
from app.sampling.graph import WARM_UP
from tests import cuda_graph
from tests.factories import tiny_model
from tests.model.esm.made_esm import write_esm
from tests.sampling.recorder import every_task, given

MODES = {"faplm": "node", "transformers": "node_and_edge"}
by_both = pytest.mark.parametrize("backend", MODES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_esm(tmp_path_factory.mktemp("esm") / "tiny")


def made(folder, backend: str):
    return tiny_model(esm={"kind": "esm2", "name": str(folder), "backend": backend, "mode": MODES[backend]})


def same(one, other):
    for name in ("path_trans", "path_rotmats", "path_aatypes", "clean_trans", "clean_rotmats", "clean_aatypes"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def how(task: str) -> dict:
    return {"task": task, "steps": 6, **given(task), **({"lengths": [9, 6]} if task == "unconditional" else {})}


@by_both
@every_task
def test_what_is_laid_out_once_makes_the_designs_of_what_is_not(folder, backend, task):
    model = made(folder, backend)
    found = sample(model, **how(task))
    same(sample(lambda batch: model(batch), device="cpu", **how(task)), found)


@by_both
@every_task
def test_the_language_model_reads_a_given_sequence_once(folder, backend, task, monkeypatch):
    model = made(folder, backend)
    language, calls = model.esm.language, []
    run = language._run
    monkeypatch.setattr(language, "_run", lambda *given: (calls.append(1), run(*given))[1])
    sample(model, **how(task))
    assert len(calls) == (1 if task == "forward_folding" else 6)


@by_both
@every_task
def test_its_steps_can_be_captured(folder, backend, task, monkeypatch):
    """Nothing of them is looked at on the host."""
    monkeypatch.setattr(sys.modules["app.sampling.prepared"], "has_cuda_graphs", lambda device: True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", cuda_graph.Graph)
    monkeypatch.setattr(torch.cuda, "graph", cuda_graph.capture)
    monkeypatch.setattr(cuda_graph.Graph, "made", [])
    model = made(folder, backend)
    same(sample(prepared(model, cuda_graph=True), **how(task)), sample(model, **how(task)))
    (graph,) = cuda_graph.Graph.made
    assert graph.replays == 6 - WARM_UP


@pytest.mark.gpu
@by_both
def test_its_steps_are_captured_on_a_gpu(folder, backend, caplog):
    model = made(folder, backend).to(NVIDIA)
    captured = sample(prepared(model, cuda_graph=True), **how("unconditional"))
    assert not caplog.records
    found = sample(prepared(model, cuda_graph=False), **how("unconditional"))
    torch.testing.assert_close(captured.clean_trans, found.clean_trans, atol=1e-3, rtol=1e-3)
