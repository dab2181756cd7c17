"""Every recipe that ships, and every trunk, head and combiner, is found by its file, built, trained, saved and sampled.

Weights are perturbed first, so that nothing is zero. Depths are cut to two, widths are those of the file.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from app.blocks import Block, BlockType
from app.config.compose import compose, options
from app.model.codesign import CodesignModel
from app.training.checkpoint import load_module
from app.training.module import CodesignModule
from app.training.recipe import parse_recipe
from app.training.resume import RUN_KEYS
from app.training.summary import header
from app.types import TrunkState
from tests.blocks.test_every_block import ablated
from tests.blocks.test_every_block import state as block_state
from tests.factories import noisy_batch, perturb, results
from tests.mac import StandIn
from tests.model.esm.made_esm import write_esm

RECIPES = options()["recipe"]
PARTS = [(part, name) for part in ("trunk", "esm", "head") for name in options()[f"model/{part}"]]
SMALL = ["model.c_s=32", "model.c_z=16", "model.node_embed.c_position=8", "model.node_embed.c_time=8"]

every_recipe = pytest.mark.parametrize("name", RECIPES)
every_part = pytest.mark.parametrize(("part", "name"), PARTS, ids=[f"{part}-{name}" for part, name in PARTS])


@pytest.fixture(scope="session")
def esm_folder(tmp_path_factory) -> Path:
    return write_esm(tmp_path_factory.mktemp("esm") / "tiny")


def recipe(esm_folder: Path, *overrides: str) -> dict:
    """A composed recipe, cut to depths of two, with a tiny language model where it has one."""
    config = _shallow(compose("train", overrides))
    if config["model"]["esm"]["kind"] != "none":
        config["model"]["esm"]["name"] = str(esm_folder)
    config["loss"]["translation_clamp"] = 1e9  # perturbed models are far off, and a clamped loss has no gradient
    return {key: value for key, value in config.items() if key not in RUN_KEYS}


def _shallow(config: Any) -> Any:
    if isinstance(config, list):
        return [_shallow(item) for item in config]
    if not isinstance(config, dict):
        return config
    return {key: min(value, 2) if key in ("depth", "repeat") else _shallow(value) for key, value in config.items()}


def made(config: dict, seed: int = 0) -> CodesignModule:
    torch.manual_seed(seed)
    return perturb(CodesignModule(copy.deepcopy(config)), seed, scale=0.05).eval()


def assert_trains_saves_and_samples(config: dict, folder: Path) -> None:
    module, batch = made(config), noisy_batch(length=10)
    prediction = module.model(batch)
    assert all(value.isfinite().all() for value in results(prediction).values())

    optimizer = module.configure_optimizers()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    loss = module.losses(batch)["train_loss"].mean()
    assert loss.isfinite()
    loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} does not affect the loss"
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), f"{name} does not affect the loss"
    optimizer.step()
    assert not [name for name, parameter in module.named_parameters() if torch.equal(parameter, before[name])]

    checkpoint = {"state_dict": module.state_dict(), "epoch": 0, "global_step": 1}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "last.ckpt")
    again = load_module(folder / "last.ckpt")
    assert again.recipe == module.recipe
    for name, value in results(module.model(batch)).items():
        assert torch.equal(results(again.model(batch))[name], value), name

    design = again.sample(task="unconditional", steps=3, lengths=[7, 9], seed=1)
    assert design.final_atom37.isfinite().all()
    assert torch.equal(
        again.sample(task="unconditional", steps=3, lengths=[7, 9], seed=1).final_aatypes, design.final_aatypes
    )


@every_recipe
def test_every_recipe_trains_saves_and_samples(name, esm_folder, tmp_path):
    config = recipe(esm_folder, f"recipe={name}")
    assert config["name"] == name
    assert_trains_saves_and_samples(config, tmp_path)


@every_part
def test_every_trunk_combiner_and_head_can_be_swapped_into_multiflow(part, name, esm_folder, tmp_path):
    config = recipe(esm_folder, "recipe=multiflow_legacy", f"model/{part}={name}", *SMALL)
    assert_trains_saves_and_samples(config, tmp_path)


@pytest.mark.parametrize("name", [kind.value for kind in BlockType])
def test_every_block_serves_in_a_trunk(name, esm_folder, tmp_path):
    """By itself where it moves the backbone, else before an IPA block."""
    config = recipe(esm_folder, "recipe=multiflow_legacy", *SMALL, f"model.trunk.stages=[{{block: {name}, depth: 2}}]")
    (stage,) = config["model"]["trunk"]["stages"]
    if not stage.get("update_backbone", False):
        config["model"]["trunk"]["stages"].append({"block": "ipa", "num_heads": 2, "transformer_layers": 1})
    assert_trains_saves_and_samples(config, tmp_path)


@every_recipe
def test_a_recipe_as_it_ships_builds_and_opens_with_what_it_is_for_and_what_it_costs(name):
    with torch.device("meta"):
        module = CodesignModule({k: v for k, v in compose("train", [f"recipe={name}"]).items() if k not in RUN_KEYS})
    purpose, cost = header(name)
    assert purpose.endswith(".") and cost.endswith(".")
    size = sum(parameter.numel() for parameter in module.parameters())
    told = float(cost.split(" M parameters")[0])
    assert told == pytest.approx(size / 1e6, rel=0.02, abs=0.005), f"the header says {told} M, there are {size:,}"


@pytest.mark.parametrize("name", options()["model/head"])
def test_ablating_what_a_head_reads_changes_its_logits(name, esm_folder):
    model = made(recipe(esm_folder, "recipe=tiny", f"model/head={name}", "model.c_s=16", "model.c_z=8")).model
    given = block_state()
    before = model.head(given)
    if before is None:
        assert not model.head.needs
        return
    for part in ("node", "edge", "frames", "t"):
        after = model.head(ablated(given, part))
        if part in model.head.needs:
            assert not torch.allclose(after, before, atol=1e-4), part
        else:
            assert torch.equal(after, before), part


@every_recipe
def test_ablating_what_the_model_is_given_changes_its_estimate(name, esm_folder):
    """Noisy frames, tokens, times and the previous estimate all matter in every recipe."""
    model = made(recipe(esm_folder, f"recipe={name}")).model
    batch = noisy_batch(length=10)
    before = model(batch).pred_trans
    for field in ("trans_t", "rotmats_t", "aatypes_t", "aatypes_sc", "so3_t", "r3_t", "cat_t", "diffuse_mask"):
        value = getattr(batch, field)
        other = copy.copy(batch)
        changed = value.flip(1) if value.shape[1] > 1 else 1 - value
        setattr(other, field, changed)
        assert not torch.allclose(model(other).pred_trans, before, atol=1e-5), field


@every_recipe
def test_edges_exist_only_where_a_block_reads_them(name, esm_folder):
    model: CodesignModel = made(recipe(esm_folder, f"recipe={name}")).model
    state: TrunkState = model.embed(noisy_batch())
    reads_edges = any("edge" in part.settings.reads for part in model.modules() if isinstance(part, Block))
    assert (state.edge is not None) is (state.edge_mask is not None) is reads_edges
    assert parse_recipe(recipe(esm_folder, f"recipe={name}")).model == model.settings


@every_recipe
def test_every_recipe_runs_on_a_mac(name, esm_folder, monkeypatch):
    """Forward, losses and backward on the stand-in for a Mac's GPU, with the numbers of the CPU."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    # Of this batch no hidden unit lies within rounding of a ReLU's kink, where gradients of two devices may differ.
    config, batch = recipe(esm_folder, f"recipe={name}"), noisy_batch(length=10, seed=1)

    def step(module: CodesignModule, batch) -> dict[str, torch.Tensor]:
        prediction, loss = results(module.model(batch)), module.losses(batch)["train_loss"].mean()
        loss.backward()
        gradients = {key: parameter.grad for key, parameter in module.named_parameters()}
        return {key: value.detach().cpu() for key, value in (prediction | {"loss": loss} | gradients).items()}

    expected = step(made(config), batch)
    with StandIn() as mac:
        found = step(made(config).to("mps"), batch.to("mps"))
    assert "native_layer_norm" in mac.used
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-4 * (1 + value.abs().max().item()), rtol=1e-3, msg=key)
