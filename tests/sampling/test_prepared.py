"""A model made ready for inference: precision, what it costs, and what is refused."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from app.errors import UserError
from app.sampling import prepared, sample
from tests.factories import noisy_batch, results, tiny_model
from tests.sampling.recorder import every_sampler, every_task, given


def test_as_it_comes_it_changes_nothing():
    model = tiny_model()
    plain, ready = (sample(one, steps=4, lengths=[9, 6]) for one in (model, prepared(model)))
    assert torch.equal(plain.path_trans, ready.path_trans)
    assert torch.equal(plain.path_aatypes, ready.path_aatypes)


@every_task
@every_sampler
def test_half_precision_is_the_networks_alone(task, sampler):
    """Frames stay rotations, positions keep the digits that half precision has not, and given residues their place."""
    inputs = given(task)
    path = sample(prepared(tiny_model(), precision="bfloat16"), task=task, steps=5, sampler=sampler, **inputs)
    for tensor in (path.path_trans, path.path_rotmats, path.clean_trans, path.clean_rotmats):
        assert tensor.dtype == torch.float32
    eye = torch.eye(3).expand_as(path.path_rotmats)
    torch.testing.assert_close(path.path_rotmats.mT @ path.path_rotmats, eye, atol=1e-5, rtol=0)
    if task == "inverse_folding":
        assert torch.equal(path.path_trans[:, -1], inputs["trans_1"])
    else:
        assert not torch.equal(path.path_trans, path.path_trans.bfloat16().float())


def test_steps_in_half_precision_start_from_exact_numbers():
    """What the model is shown, and the Euler step from what it says, are as in float32."""
    model, shown = tiny_model(), []

    def watched(batch):
        shown.append(batch)
        return model(batch)

    path = sample(prepared(watched, precision="bfloat16"), steps=5, lengths=[9])
    for call, t in enumerate(torch.linspace(0.01, 1, 5)):
        assert shown[call].r3_t.dtype == torch.float32
        assert shown[call].r3_t.item() == t.item()
        assert torch.equal(shown[call].trans_t, path.path_trans[:, call])
    now, after, aim = path.path_trans[:, 1], path.path_trans[:, 2], path.clean_trans[:, 1]
    torch.testing.assert_close(
        after, now + (aim - now) / 3, atol=1e-5, rtol=0
    )  # a quarter of the time, a third of it left


def test_the_module_is_left_as_it_was():
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ready = prepared(model, precision="bfloat16")
    sample(ready, steps=3, lengths=[9])
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name])
    assert torch.equal(model(noisy_batch()).pred_trans, tiny_model()(noisy_batch()).pred_trans)


class CastsOf(TorchDispatchMode):
    """Counts how often parameters are copied into another type."""

    def __init__(self, model):
        super().__init__()
        self.parameters = {parameter.data_ptr() for parameter in model.parameters()}
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name() == "aten::_to_copy" and args[0].data_ptr() in self.parameters:
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_a_run_and_not_at_every_step():
    model, casts = tiny_model(), []
    for steps in (2, 6):
        with CastsOf(model) as seen:
            sample(prepared(model, precision="bfloat16"), steps=steps, lengths=[9])
        casts.append(seen.count)
    assert casts[0] == casts[1] > 20


def test_what_a_device_lacks_is_refused_by_its_key():
    model = tiny_model()
    with pytest.raises(UserError, match="precision=float16: the cpu device has none here"):
        prepared(model, precision="float16")
    with pytest.raises(UserError, match="cuda_graph=true: there are CUDA graphs on NVIDIA GPUs only, not on cpu: set"):
        prepared(model, cuda_graph=True)
    assert not prepared(model).cuda_graph
    assert prepared(model, precision="auto").dtype == torch.float32


@pytest.mark.slow
def test_a_compiled_model_makes_the_same_designs():
    torch._dynamo.reset()
    model, how = tiny_model(), {"steps": 5, "keep_path": False}
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    ready = prepared(model, compile=True, backend=backend)
    for length in (9, 12, 7):
        found, expected = (sample(one, lengths=[length] * 2, **how) for one in (ready, model))
        assert torch.equal(found.final_aatypes, expected.final_aatypes)
        torch.testing.assert_close(found.final_atom37, expected.final_atom37, atol=1e-3, rtol=0)
    assert 1 <= len(graphs) <= 3
    assert results(model(noisy_batch())).keys() == results(tiny_model()(noisy_batch())).keys()
    torch._dynamo.reset()
