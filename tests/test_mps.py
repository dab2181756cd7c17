"""Training, sampling and inference on a Mac: a stand-in (see tests/mac.py) refuses what its GPU refuses."""

import json

import pytest
import torch
import yaml
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import infer
from app import devices, environment
from app.config.entry import run as run_entry
from app.config.overrides import RECIPES
from app.data.batching import collate
from app.data.features import features
from app.errors import UserError
from app.geometry.superpose import superpose
from app.sampling import SAMPLERS, predict, sample
from app.structure.read import read_structure
from app.training.fit import accelerator_of
from app.training.module import CodesignModule
from app.training.passes import Place
from app.training.recipe import TrainerSettings
from tests.factories import protein_batch, random_rotations, tiny_module
from tests.mac import MacTensor, StandIn, operators_without_mps
from tests.sampling.made_inputs import write_structure

MPS = torch.device("mps")
FORWARD = {"_softmax", "native_layer_norm", "embedding", "sin"}  # operators that every model call needs
TASKS = ("unconditional", "forward_folding", "inverse_folding")


@pytest.fixture
def mac(monkeypatch):
    """A machine with a Mac's GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def lightning_on_it(monkeypatch):
    """Lightning asks the machine itself what there is: it is given the stand-in as the device of a CPU run."""

    def trainer(accelerator, **settings):
        made = Trainer(accelerator="cpu", **settings)
        made.strategy._root_device = torch.device("cpu" if accelerator == "cpu" else "mps")
        return made

    monkeypatch.setattr(predict, "Trainer", trainer)
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda self, device: None)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def given(task, size=2, length=11):
    clean = protein_batch(size, length)
    if task == "forward_folding":
        return {"aatypes_1": clean.aatypes_1}
    if task == "inverse_folding":
        return {"trans_1": clean.trans_1, "rotmats_1": clean.rotmats_1}
    return {"lengths": [length] * size}


def train_a_step(module: CodesignModule, batch) -> dict[str, torch.Tensor]:
    """Two steps, one of them with self-conditioning; the parameters after them, on the CPU."""
    module.train()
    optimizer = module.configure_optimizers()
    for index in range(2):
        optimizer.zero_grad()
        module.outputs(batch, Place(0, index, 0))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    return {name: parameter.detach().cpu() for name, parameter in module.named_parameters()}


def training_module() -> CodesignModule:
    return tiny_module(flow={"self_condition_share": 0.7}, loss={"auxiliary_weight": 1.0, "auxiliary_min_t": 0.0})


# The stand-in itself


def test_the_list_of_operators_is_read_off_this_torch():
    lacking = operators_without_mps()
    assert {"_linalg_svd", "_linalg_eigh", "linalg_eig", "geqrf", "linalg_lstsq", "linalg_lstsq.out"} <= lacking
    assert not {"add.Tensor", "mm", "cumsum", "sort", "atan2", "linspace", "eye", "native_layer_norm", "view"} & lacking


def test_it_computes_and_keeps_track_of_where_tensors_are(mac):
    layer = torch.nn.Linear(4, 5).to("mps")
    x = torch.arange(8.0, device=MPS).view(2, 4) + torch.tensor([1.0], device=MPS)
    assert isinstance(x, MacTensor)
    loss = layer(x).square().sum()
    loss.backward()
    assert isinstance(layer.weight.grad, MacTensor)
    residual = layer.cpu()(x.cpu())
    torch.testing.assert_close(layer.weight.grad, 2 * residual.T @ x.cpu())
    assert loss.item() == pytest.approx(residual.square().sum().item())
    assert "addmm" in mac.used


@pytest.mark.parametrize(
    "attempt",
    [
        lambda x: x.double(),
        lambda x: torch.zeros(3, dtype=torch.float64, device=MPS),
        lambda x: torch.zeros(3, dtype=torch.float64).to(MPS),
        lambda x: torch.tensor([1.0], dtype=torch.float64, device=MPS),
        lambda x: x.new_tensor([1.0], dtype=torch.float64),
        lambda x: x.sum(dtype=torch.float64),
        lambda x: torch.linalg.svd(x),
        lambda x: torch.linalg.eigh(x),
        lambda x: torch.linalg.lstsq(x, x),
        lambda x: x + torch.ones(3, 3),
        lambda x: torch.randn(3, generator=torch.Generator(), device=MPS),
    ],
)
def test_it_refuses_what_a_mac_refuses(mac, attempt):
    with pytest.raises((TypeError, NotImplementedError, RuntimeError), match=r"MPS|mps"):
        attempt(torch.eye(3).to(MPS))


def test_it_lets_pass_what_is_taken_to_the_cpu_and_back(mac):
    x = torch.eye(3, device=MPS)
    assert torch.linalg.svd(x.cpu().double()).S.float().to(MPS).sum().item() == 3


# What runs on it


def test_training(mac):
    """Noise, losses, gradients, clipping and AdamW, with the numbers of the CPU."""
    batch = protein_batch(size=3, length=14, given=2, missing=3)
    expected = train_a_step(training_module(), batch)
    assert not mac.used
    found = train_a_step(training_module().to("mps"), batch.to("mps"))
    assert {"_softmax", "native_layer_norm", "embedding"} <= mac.used
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)


def test_training_on_structure_files(mac, tmp_path):
    protein = read_structure(write_structure(tmp_path / "a.pdb", 12, shift=300.0))
    batch = collate([{**features(protein), "name": protein.name}] * 2).to("mps")
    assert all(value.isfinite().all() for value in train_a_step(training_module().to("mps"), batch).values())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("task", TASKS)
def test_sampling(mac, task, sampler):
    module = tiny_module()
    expected = sample(module.model, task=task, steps=4, sampler=sampler, **given(task))
    assert not mac.used
    found = sample(module.model.to("mps"), task=task, steps=4, sampler=sampler, **given(task))
    assert "_softmax" in mac.used
    assert not isinstance(found.path_trans, MacTensor)
    assert torch.equal(found.final_aatypes, expected.final_aatypes)
    torch.testing.assert_close(found.final_atom37, expected.final_atom37, atol=1e-3, rtol=0)
    assert found.path_trans.dtype == torch.float32


@pytest.mark.parametrize("changes", [{"token_step": "plain"}, {"token_step": "plain", "tokens": "uniform"}])
def test_sampling_with_plain_token_steps(mac, changes):
    sample(tiny_module().model.to("mps"), steps=4, sampler=SAMPLERS["euler"].model_copy(update=changes), lengths=[9, 7])


def test_superposition_takes_its_decomposition_to_the_cpu(mac):
    points, mask = torch.randn(2, 9, 3), torch.ones(2, 9)
    turned = points @ random_rotations(2).mT + 4
    back = superpose(turned.to("mps"), points.to("mps"), mask.to("mps"))
    torch.testing.assert_close(back.cpu(), points, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_inference(mac, lightning_on_it, tmp_path, task):
    module = tiny_module()
    saved = {"state_dict": module.state_dict(), "epoch": 0, "global_step": 0}
    module.on_save_checkpoint(saved)
    torch.save(saved, tmp_path / "last.ckpt")
    inputs = ["lengths=[9]"] if task == "unconditional" else [f"input={write_structure(tmp_path / 'a.pdb', 12)}"]
    designs = {}
    for device in ("cpu", "mps"):
        assert not FORWARD & mac.used  # the sketch of a model, on the meta device, looks like the stand-in's
        out = tmp_path / device
        arguments = [f"ckpt={tmp_path / 'last.ckpt'}", f"out={out}", f"task={task}", "steps=4", f"device={device}"]
        assert infer.main([*arguments, *inputs]) == 0
        designs[device] = json.loads((out / "manifest.json").read_text())["designs"]
    assert mac.used >= FORWARD
    for there, here in zip(designs["mps"], designs["cpu"], strict=True):
        assert there["sequence"] == here["sequence"]


class NoFloat64(TorchDispatchMode):
    """Fails on any float64 tensor, wherever it is."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            assert not (isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64), f"{func} has a float64 tensor"
        return out


def test_no_float64_on_the_cpu_either():
    """Training and sampling make none, so that no device can be handed one."""
    batch, inputs = protein_batch(size=3, length=14, given=2, missing=3), {task: given(task) for task in TASKS}
    with NoFloat64():
        train_a_step(training_module(), batch)
        for task in TASKS:
            sample(tiny_module().model, task=task, steps=3, **inputs[task]).path_atom37.sum()


# Choosing it


def test_device_mps_and_auto(no_gpu, monkeypatch):
    assert devices.choose("auto") == torch.device("cpu")
    with pytest.raises(UserError, match=r"device=mps is not available here: use device=auto"):
        devices.choose("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.choose("mps") == devices.choose("auto") == MPS


def test_infer_without_a_mac_says_so(no_gpu, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["infer.py", "ckpt=x.ckpt", f"out={tmp_path / 'o'}", "lengths=[9]", "device=mps"])
    with pytest.raises(SystemExit) as ended:
        run_entry(infer.main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: device=mps is not available here: use device=auto")


def trainer_settings(name, **changes) -> TrainerSettings:
    return TrainerSettings(**yaml.safe_load((RECIPES / f"trainer/{name}.yaml").read_text()) | changes)


def test_trainer_mps_and_auto(no_gpu, monkeypatch):
    assert accelerator_of(trainer_settings("auto")) == "cpu"
    with pytest.raises(UserError, match=r"trainer.accelerator=mps is not available here: use trainer.accelerator=auto"):
        accelerator_of(trainer_settings("mps"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert accelerator_of(trainer_settings("mps")) == "mps"
    assert accelerator_of(trainer_settings("auto")) == "mps"


def test_a_mac_keeps_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert trainer_settings("mps").precision == "32-true"
    for name in ("mps", "auto"):
        with pytest.raises(UserError, match=r"trainer.precision=bf16-mixed.*32-true"):
            accelerator_of(trainer_settings(name, precision="bf16-mixed"))
    with devices.full_precision("mps"):
        pass


def test_the_fallback_is_on_unless_the_shell_says_otherwise():
    assert environment.Variables().PYTORCH_ENABLE_MPS_FALLBACK == "1"
