"""Models without edges: memory grows with the length, in forward, losses and backward."""

import pytest
import torch

from app.config.compose import compose
from app.ops import select
from app.ops.settings import OPERATIONS, KernelSettings
from app.training.module import CodesignModule
from app.training.resume import RUN_KEYS
from tests.factories import noisy_batch, perturb
from tests.memory import LargestTensor, Memory

SHALLOW = ["model.c_s=32", "model.node_embed.c_position=16", "model.node_embed.c_time=16"]


def module(*overrides: str) -> CodesignModule:
    config = compose("train", [*overrides, "loss.auxiliary_weight=1", "loss.auxiliary_min_t=0", *SHALLOW])
    for stage in config["model"]["trunk"]["stages"]:
        stage[next(key for key in ("repeat", "depth") if key in stage)] = 1
    return perturb(CodesignModule({k: v for k, v in config.items() if k not in RUN_KEYS}), scale=0.05)


def step(model: CodesignModule, length: int, watch) -> None:
    batch = one(length)
    with watch:
        model.losses(batch)["train_loss"].mean().backward()
    model.zero_grad()


def one(length: int):
    return noisy_batch(2, length, given=0, missing=0).map(lambda tensor: tensor[:1])


@pytest.mark.parametrize("trunk", ["linear", "geometric", "flash_ipa"])
def test_memory_grows_with_the_length(trunk):
    model, peaks, largest = module("recipe=linear_memory", f"model/trunk={trunk}"), {}, {}
    for length in (128, 256, 512):
        memory, seen = Memory(), LargestTensor()
        step(model, length, memory)
        step(model, length, seen)
        peaks[length], largest[length] = memory.peak, seen.numel
    assert peaks[512] < 2.1 * peaks[256] < 4.3 * peaks[128]
    assert largest[512] <= 2 * largest[256] <= 4 * largest[128]


def test_with_edges_it_grows_with_the_square():
    """What the measure says of a model of which that is known."""
    model, peaks = module("recipe=tiny", "model.c_z=16", "model.edge_embed.feature_width=8"), {}
    for length in (64, 128):
        memory = Memory()
        with select.using(KernelSettings(**dict.fromkeys(OPERATIONS, "reference"))):  # others work in slices
            step(model, length, memory)
        peaks[length] = memory.peak
    assert peaks[128] > 3.5 * peaks[64]


def test_without_edges_the_state_has_none():
    state = module("recipe=linear_memory").model.embed(one(9))
    assert state.edge is None and state.edge_mask is None
    assert torch.isfinite(state.node).all()
