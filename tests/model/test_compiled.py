"""torch.compile of the model: the same results and parameters, few compilations, and a way back."""

import copy

import pytest
import torch

from app.devices import has_compiler
from app.errors import UserError
from app.model.compiled import Compiled, compile_in_place
from tests.factories import noisy_batch, results, tiny_model, tiny_recipe

CPU = torch.device("cpu")


def said(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("app.")]


def model_of_one_block():
    return tiny_model(trunk={"stages": [tiny_recipe()["model"]["trunk"]["stages"][0] | {"depth": 1}]})


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


@pytest.mark.parametrize("vary", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_ever_new_lengths_do_not_compile_ever_again(vary, caplog):
    """And there is nothing in the model that breaks the graph: what is compiled is whole."""
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


@pytest.mark.slow
def test_kernels_of_the_cpu_give_the_models_results_and_gradients():
    plain, compiled = model_of_one_block(), model_of_one_block()
    compile_in_place(compiled, CPU)
    for length in (11, 12, 9):
        batch = noisy_batch(2, length)
        found, expected = compiled(batch), plain(batch)
        close(found, expected, atol=1e-4, rtol=1e-4)
        for prediction in (found, expected):
            (prediction.pred_trans.square().mean() + prediction.pred_logits.square().mean()).backward()
    for (name, one), two in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, atol=1e-4, rtol=1e-3, msg=name)
