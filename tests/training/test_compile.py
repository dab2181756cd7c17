"""train.py compile=true: the same run, checkpoints that do not tell, and a way back."""

import functools

import pytest
import torch
import yaml
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from app.training.checkpoint import open_checkpoint
from app.training.run import train
from tests.training import runs
from tests.training.runs import arguments, assert_same_weights

COMPILE = torch.compile


@pytest.fixture(autouse=True)
def _forget():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def run(folder, name, *more):
    assert train(arguments(folder, "trainer.max_steps=4", f"out={folder / name}", *more)) == 0
    return folder / name


def machine(folder) -> dict:
    return yaml.safe_load((folder / "machine.yaml").read_text())


def broken(graph, inputs):
    raise RuntimeError("no C++ compiler")


BROKEN_BACKWARD = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward), bw_compiler=broken)


@pytest.mark.parametrize(
    "backend",
    [pytest.param(each, marks=pytest.mark.slow) for each in (broken, BROKEN_BACKWARD)],
    ids=["in both passes", "in the backward pass"],
)
def test_a_run_whose_compiler_is_broken_is_the_run_without(backend, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", functools.partial(COMPILE, backend=backend))
    compiled = run(tmp_path, "compiled", "compile=true")
    said = capsys.readouterr()
    assert (said.out + said.err).count("torch.compile does not work here") == 1
    assert_same_weights(run(tmp_path, "plain"), compiled)
    assert machine(compiled)["compiled"] is False


@pytest.mark.slow
def test_checkpoints_do_not_tell_and_a_run_goes_on_either_way(tmp_path, monkeypatch, capsys):
    traced = functools.partial(COMPILE, backend=lambda graph, inputs: graph.forward)  # whole compilations take minutes
    monkeypatch.setattr(torch, "compile", traced)
    plain, compiled = run(tmp_path, "plain"), run(tmp_path, "compiled", "compile=true")
    said = capsys.readouterr().out
    assert "does not work" not in said
    assert said.count("compile=true: compiling the network") == 1
    assert [machine(out)["compiled"] for out in (plain, compiled)] == [False, True]
    assert list(runs.weights(plain)) == list(runs.weights(compiled))
    for name, value in runs.weights(plain).items():
        torch.testing.assert_close(runs.weights(compiled)[name], value, atol=1e-4, rtol=0)
    assert open_checkpoint(compiled / "checkpoints/last.ckpt").recipe["compile"] is True
    last = f"resume={compiled / 'checkpoints/last.ckpt'}"
    assert train([last, "trainer.max_steps=5", "compile=false"]) == 0
    assert "compile: True -> False" in capsys.readouterr().out
    assert open_checkpoint(compiled / "checkpoints/last.ckpt").recipe["compile"] is False
