"""Passes of every recipe without a language model can be recorded, with its own estimate and all parts of the loss.

Those that make activations again, which `cuda_graph=true` refuses, are made to keep them.
"""

from typing import Any

import pytest
import torch

from app.config.compose import compose
from app.data.ledger import Ledger
from app.devices import NVIDIA
from app.training.module import CodesignModule
from app.training.passes import passes
from app.training.recorded import WARM_UP, RecordedPasses, refuse
from tests import cuda_graph
from tests.model.test_compiled import in_slices
from tests.test_every_recipe import RECIPES, made, recipe
from tests.training.test_recorded import assert_same, batches, gradients

WHOLE = (
    "loss.auxiliary_weight=1",
    "loss.auxiliary_min_t=0",
    "loss.token_likelihood_weighting=true",
    "flow.self_condition_share=1",
)
NARROW = ("model.c_s=32", "model.node_embed.c_position=16", "model.node_embed.c_time=16")


def _language_model(name: str) -> bool:
    return compose("train", [f"recipe={name}"])["model"]["esm"]["kind"] != "none"


every_recipe = pytest.mark.parametrize("name", [one for one in RECIPES if not _language_model(one)])


def module_of(name: str, narrow: bool) -> CodesignModule:
    config = _at_once(recipe(None, f"recipe={name}", *WHOLE, *(NARROW if narrow else ())))
    if narrow and config["model"]["c_z"]:
        config["model"]["c_z"] = 16
    module = made(config).train()
    refuse(module.model, torch.device(NVIDIA), "auto")
    return module


def _at_once(config: Any) -> Any:
    """Without stages that make their activations again."""
    if isinstance(config, list):
        return [_at_once(item) for item in config]
    if not isinstance(config, dict):
        return config
    return {key: False if key == "checkpoint" else _at_once(value) for key, value in config.items()}


def assert_replays(module: CodesignModule, device: str, dtype: torch.dtype = torch.float32, length: int = 32) -> None:
    recorded = RecordedPasses(module.losses_of_part, module.parameters())
    launched = RecordedPasses(module.losses_of_part, module.parameters(), records=False)
    for at in batches(WARM_UP + 2, length, device):
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            found = passes(module, *at, Ledger(), recorded=recorded), gradients(module)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            assert_same(found, (passes(module, *at, Ledger(), recorded=launched), gradients(module)))
    assert recorded.serves


@every_recipe
@pytest.mark.parametrize("sliced", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_they_can_be_recorded(name, sliced, monkeypatch):
    cuda_graph.install(monkeypatch, "app.training.recorded")
    if sliced:
        in_slices(monkeypatch)
    assert_replays(module_of(name, narrow=True), "cpu", length=16 if sliced else 32)


@pytest.mark.gpu
@every_recipe
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_can_be_recorded_on_a_gpu(name, dtype):
    assert_replays(module_of(name, narrow=False).to(NVIDIA), NVIDIA, dtype)
