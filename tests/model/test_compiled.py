"""torch.compile of the model: the same results and parameters, few compilations, and a way back."""

import copy
import logging
import os
import shutil
import sys
import weakref

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from app.config.compose import compose
from app.devices import NVIDIA, has_compiler
from app.errors import UserError
from app.model.codesign import CodesignModel
from app.model.compiled import Compiled, compile_in_place
from app.training.recipe import parse_recipe
from app.training.resume import RUN_KEYS
from tests.factories import noisy_batch, perturb, results, tiny_model, tiny_recipe
from tests.ops.test_compiled_slices import SMALL

CPU = torch.device("cpu")


def said(caplog) -> list[str]:
    """Warnings."""
    found = [record for record in caplog.records if record.name.startswith("app.")]
    return [record.message for record in found if record.levelno >= logging.WARNING]


def model_of_one_block(**settings):
    return tiny_model(trunk={"stages": [tiny_recipe()["model"]["trunk"]["stages"][0] | {"depth": 1} | settings]})


def in_slices(monkeypatch):
    """Whatever works in slices makes several of these small proteins."""
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)


class Counting:
    """A backend of torch.compile that compiles nothing and counts what it is given."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def _forget():
    """What other tests compiled does not count."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def close(found, expected, **bounds):
    for name, value in results(expected).items():
        torch.testing.assert_close(results(found)[name], value, **bounds)


@pytest.mark.parametrize("sliced", [False, True], ids=["whole", "in slices"])
@pytest.mark.parametrize("vary", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_ever_new_lengths_do_not_compile_ever_again(vary, sliced, caplog, monkeypatch):
    """And there is nothing in the model that breaks the graph: what is compiled is whole."""
    if sliced:
        in_slices(monkeypatch)
    model, backend = model_of_one_block(), Counting()
    compiled = Compiled(model, CPU, lengths_vary=vary, backend=backend, fullgraph=True)
    with torch.no_grad():
        for size, length in ((2, 12), (2, 9), (3, 17), (4, 30), (2, 21)):
            batch = noisy_batch(size, length)
            close(compiled(batch), model(batch), atol=1e-4, rtol=0)
    assert backend.graphs == (1 if vary else 2)  # else: the first shape, then all others
    assert not said(caplog)


def test_training_compiles_for_each_kind_of_call_only(caplog):
    """With gradients and, for self-conditioning, without."""
    model, backend = model_of_one_block().train(), Counting()
    compile_in_place(model, CPU, backend=backend, fullgraph=True)
    for length in (12, 9, 17, 30):
        batch = noisy_batch(2, length)
        with torch.no_grad():
            model(batch)
        model(batch).pred_trans.sum().backward()
    assert backend.graphs == 2
    assert not said(caplog)


def squares(prediction):
    return prediction.pred_trans.square().mean() + prediction.pred_logits.square().mean()


def gradients(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    squares(model(batch)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def shallow(config, depth: int):
    if isinstance(config, list):
        return [shallow(item, depth) for item in config]
    if not isinstance(config, dict):
        return config
    cut = {"depth", "repeat"}
    return {key: min(value, depth) if key in cut else shallow(value, depth) for key, value in config.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "depth"), [("multiflow_legacy", 2), ("pairformer_heavy", 1), ("linear_memory", 2)])
def test_recipes_compile_twice_and_never_again_for_lengths_in_slices(name, depth, monkeypatch, caplog):
    """Once with gradients and once without."""
    in_slices(monkeypatch)
    config = shallow(compose("train", [f"recipe={name}", "model.c_s=16", "data=demo"]), depth)
    config["model"]["c_z"] = config["model"]["c_z"] and 8
    recipe = parse_recipe({key: value for key, value in config.items() if key not in RUN_KEYS})
    torch.manual_seed(0)
    plain = perturb(CodesignModel(recipe.model), scale=0.05).eval()
    compiled, backend = copy.deepcopy(plain), Counting()
    compile_in_place(compiled, CPU, backend=backend, fullgraph=True)
    for size, length in ((2, 12), (2, 9), (3, 17), (4, 34), (2, 67)):
        batch = noisy_batch(size, length)
        with torch.no_grad():
            close(compiled(batch), plain(batch), atol=1e-4, rtol=0)
        expected = gradients(plain, batch)
        for key, found in gradients(compiled, batch).items():
            torch.testing.assert_close(found, expected[key], atol=1e-3 * expected[key].abs().max().item(), rtol=0)
    assert backend.graphs == 2
    assert not said(caplog)


def test_parameters_keep_their_names_and_copies_are_plain():
    model = model_of_one_block()
    names = list(model.state_dict())
    compile_in_place(model, CPU, backend=Counting())
    for _ in range(2):
        model(noisy_batch())
    assert list(model.state_dict()) == names == [name for name, _ in model.named_parameters()]
    assert copy.deepcopy(model)._compiled_call_impl is None
    close(copy.deepcopy(model)(noisy_batch()), model_of_one_block()(noisy_batch()))


def broken(graph, inputs):
    raise RuntimeError("no working C++ compiler found\nlong explanations")


def test_a_broken_compiler_is_told_once_and_done_without(caplog):
    model = model_of_one_block()
    compiled = Compiled(model, CPU, lengths_vary=True, backend=broken)
    for length in (12, 9, 17):
        close(compiled(noisy_batch(2, length)), model(noisy_batch(2, length)), atol=0, rtol=0)
    (warning,) = said(caplog)
    assert warning.startswith("compile=true: torch.compile does not work here (")
    assert "no working C++ compiler found long explanations): going on without" in warning


@pytest.mark.slow
def test_so_is_one_that_fails_in_the_backward_pass_alone(caplog):
    """The step is as if there had been none: forward pass, gradients, and what dropout draws after it."""

    def fails(graph, inputs):
        raise RuntimeError("no kernel for the backward pass")

    backend = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward), bw_compiler=fails)
    model, plain = (model_of_one_block(transformer_dropout=0.3).train() for _ in range(2))
    compile_in_place(model, CPU, backend=backend)
    for length in (12, 12, 9):
        made = []
        for one in (model, plain):
            torch.manual_seed(length)
            made.append((gradients(one, noisy_batch(2, length)), torch.rand(())))
        (found, drawn), (expected, as_well) = made
        assert drawn == as_well
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
    (warning,) = said(caplog)
    assert "no kernel for the backward pass" in warning


def test_at_the_limit_others_run_without_and_those_compiled_go_on(caplog, monkeypatch):
    monkeypatch.setattr(sys.modules["app.model.compiled"], "MOST_COMPILATIONS", 1)
    calls = []

    def backend(graph, inputs):
        return lambda *given: calls.append(len(given)) or graph.forward(*given)

    model = model_of_one_block()
    compiled = Compiled(model, CPU, lengths_vary=False, backend=backend)
    with torch._dynamo.config.patch(recompile_limit=1):
        for length in (12, 12, 9, 17, 12):
            close(compiled(noisy_batch(2, length)), model(noisy_batch(2, length)), atol=1e-4, rtol=0)
    assert len(calls) == 2
    (warning,) = said(caplog)
    assert warning.startswith("compile=true: compiled for 1 kinds of batches: from here on, others run without")


def test_when_it_begins_it_says_so_once():
    model, told = model_of_one_block(), []
    compiled = Compiled(model, CPU, lengths_vary=True, backend=Counting(), tell=told.append)
    compiled(noisy_batch())
    assert not told and not compiled.served
    for length in (12, 9):
        compiled(noisy_batch(2, length))
    assert told == ["compile=true: compiling the network; the first calls of each kind take minutes"]
    assert compiled.served


def test_so_is_a_python_that_it_does_not_know(caplog, monkeypatch):
    def refuses(*args, **kwargs):
        raise RuntimeError("torch.compile is not supported on Python 4.0")

    monkeypatch.setattr(torch, "compile", refuses)
    model = model_of_one_block()
    compile_in_place(model, CPU)
    close(model(noisy_batch()), model_of_one_block()(noisy_batch()), atol=0, rtol=0)
    (warning,) = said(caplog)
    assert "not supported on Python 4.0" in warning


def test_so_is_a_device_without_a_compiler(caplog):
    mac = torch.device("mps")
    assert not has_compiler(mac)
    assert Compiled(int, mac, lengths_vary=True)("3") == 3
    assert "prototype" in said(caplog)[0]


def test_running_out_of_memory_is_not_tried_again():
    """Nor does what failed stay in memory while the call is made again for another reason."""
    calls, held = [], []

    class Large:
        pass

    def function(batch):
        large = Large()
        calls.append(len(calls))
        if len(calls) == 2:
            held.append(weakref.ref(large))
            try:
                raise RuntimeError("a kernel failed")
            except RuntimeError as error:
                raise ValueError("so the call did") from error
        if len(calls) == 3:
            held.append(held[0]())
        if len(calls) == 4:
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")
        return batch

    compiled = Compiled(function, CPU, lengths_vary=False, backend="eager")
    compiled.compiled = function
    batch = noisy_batch()
    compiled(batch)
    compiled(batch)
    assert calls == [0, 1, 2] and held[1] is None
    compiled.compiled = function
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        compiled(batch)
    assert len(calls) == 4


@pytest.mark.parametrize("variable", ["TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"])
def test_where_it_is_switched_off_it_does_not_claim_to_serve(variable, monkeypatch, caplog):
    monkeypatch.setenv(variable, "1")
    with torch._dynamo.config.patch(disable=variable == "TORCH_COMPILE_DISABLE"):  # read when torch is imported
        compiled = Compiled(lambda batch: batch, CPU, lengths_vary=False)
        for _ in range(3):
            compiled(noisy_batch())
    assert not compiled.served and f"{variable}=1 has switched it off" in said(caplog)[0]


def test_errors_of_the_function_are_its_own(caplog):
    for error in (UserError("kernels.x=y: not here"), torch.OutOfMemoryError("out of memory")):
        calls = []

        def fails_later(batch, error=error, calls=calls):
            calls.append(batch)
            if len(calls) > 1:
                raise error

        compiled = Compiled(fails_later, CPU, lengths_vary=True, backend=Counting())
        compiled(noisy_batch())
        with pytest.raises(type(error)):
            compiled(noisy_batch())
    assert not said(caplog)


def has_cpp_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl"))


@pytest.mark.slow
@pytest.mark.skipif(not has_cpp_compiler(), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("device", [CPU, pytest.param(NVIDIA, marks=pytest.mark.gpu)], ids=str)
def test_kernels_that_it_writes_give_the_models_results_and_gradients(device, monkeypatch, caplog):
    in_slices(monkeypatch)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    plain, compiled = (model_of_one_block().to(device) for _ in range(2))
    compile_in_place(compiled, torch.device(device))
    for length in (11, 12, 9):
        batch = noisy_batch(2, length).to(device)
        close(compiled(batch), plain(batch), atol=1e-4, rtol=1e-4)
        expected = gradients(plain, batch)
        for name, found in gradients(compiled, batch).items():
            torch.testing.assert_close(found, expected[name], atol=1e-4, rtol=1e-3, msg=name)
    assert compiled._compiled_call_impl.served
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == 1
    assert not said(caplog)
