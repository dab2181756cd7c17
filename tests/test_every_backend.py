"""One checkpoint, every backend: the same outputs and the same names of parameters, whoever computes."""

import pytest
import torch

from app.config.compose import compose
from app.devices import NVIDIA
from app.ops import select
from app.ops.settings import OPERATIONS, KernelSettings
from app.training.module import CodesignModule
from app.training.resume import RUN_KEYS
from tests.factories import noisy_batch, perturb

REFERENCE = KernelSettings(**dict.fromkeys(OPERATIONS, "reference"))
RECIPES = ("multiflow_legacy", "pairformer_heavy")
BOUNDS = {torch.float32: (1e-3, 1e-3), torch.bfloat16: (0.5, 0.5)}
"""Angstrom, and of logits, by the precision of the network."""

CASES = [
    (operation.name, backend.name)
    for operation in select.operations().values()
    for backend in operation.backends.values()
    if backend.name != "reference"
]


def checkpoint(recipe: str) -> CodesignModule:
    config = compose("train", [f"recipe={recipe}"])
    return perturb(CodesignModule({k: v for k, v in config.items() if k not in RUN_KEYS}), scale=0.02).eval()


@pytest.fixture(scope="module", params=RECIPES)
def module(request) -> CodesignModule:
    return checkpoint(request.param)


def outputs(module: CodesignModule, settings: KernelSettings, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    batch = noisy_batch(2, 21, missing=3).to(device)
    with select.using(settings), torch.no_grad(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
        prediction = module.to(device).model(batch)
        used = {choice.operation: choice.backend for choice in select.choices()}
    assert all(used[name] == getattr(settings, name) for name in used if getattr(settings, name) != "auto")
    present = batch.res_mask[..., None]
    return [(x * present).float().cpu() for x in (prediction.pred_trans, prediction.pred_logits)]


def hold(module: CodesignModule, changed: dict[str, str], device: str, dtype: torch.dtype) -> None:
    settings = REFERENCE.model_copy(update=changed)
    expected = outputs(module, REFERENCE, device, torch.float32)
    found = outputs(module, settings, device, dtype)
    for one, other, bound in zip(found, expected, BOUNDS[dtype], strict=True):
        assert (one - other).abs().max() < bound


def serves(operation: str, backend: str, device: str, dtype: torch.dtype) -> str | None:
    """Why a backend is not to be had here, or None."""
    one = select.operations()[operation].backends[backend]
    if one.devices is not None and device not in one.devices:
        return f"runs on {' and '.join(one.devices)}"
    if one.dtypes is not None and dtype not in one.dtypes:
        return f"has no {dtype}"
    return one.absent()


@pytest.mark.parametrize(("operation", "backend"), CASES)
def test_the_same_on_the_cpu(module, operation, backend):
    if reason := serves(operation, backend, "cpu", torch.float32):
        pytest.skip(reason)
    hold(module, {operation: backend}, "cpu", torch.float32)


def test_auto_is_the_same(module):
    hold(module, dict.fromkeys(OPERATIONS, "auto"), "cpu", torch.float32)


def test_auto_in_bfloat16_is_as_good_as_the_reference_in_it(module):
    hold(module, dict.fromkeys(OPERATIONS, "auto"), "cpu", torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("operation", "backend"), CASES)
def test_the_same_on_a_gpu(module, operation, backend, dtype):
    if reason := serves(operation, backend, NVIDIA, dtype):
        pytest.skip(reason)
    hold(module, {operation: backend}, NVIDIA, dtype)


@pytest.mark.parametrize("recipe", RECIPES)
def test_names_of_parameters_do_not_depend_on_the_backend(recipe):
    names = []
    backends = dict.fromkeys(backend for _, backend in CASES)
    named = [KernelSettings(**{name: one for name, one in CASES if one == backend}) for backend in backends]
    for settings in (REFERENCE, KernelSettings(), *named):
        with select.using(settings), torch.device("meta"):
            config = compose("train", [f"recipe={recipe}"])
            names.append(list(CodesignModule({k: v for k, v in config.items() if k not in RUN_KEYS}).state_dict()))
    assert all(others == names[0] for others in names)


@pytest.mark.parametrize("recipe", ["multiflow_legacy", "pairformer_heavy", "linear_memory", "pair_bias_light"])
def test_modules_say_which_operations_they_call(recipe):
    module = checkpoint(recipe)
    with select.using(KernelSettings()), torch.no_grad():
        module.model(noisy_batch(2, 5, given=0, missing=0))
        assert select.used_by(module) == {choice.operation for choice in select.choices()}


def test_point_attention_reads_the_pairs_in_half_precision_whatever_their_residual_stream_is_kept_in():
    module = checkpoint("pairformer_heavy")
    with select.using(KernelSettings()), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        module.model(noisy_batch(2, 5))
        seen = {choice.operation: choice.call.dtype for choice in select.choices()}
    assert seen["invariant_point_attention"] == torch.bfloat16


def test_the_backward_pass_may_run_under_autocast():
    """Lightning's does not; a loop of one's own may."""
    module, batch = checkpoint("multiflow_legacy"), noisy_batch(2, 7)
    with torch.autocast("cpu", torch.bfloat16):
        module.losses(batch)["train_loss"].mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters() if parameter.grad is not None)
