"""Exporting to Multiflow's layout: the inverse of loading, for its readers and for Lightning."""

import os
import pickletools
import zipfile

import lightning
import pytest
import torch
import yaml
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import OmegaConf
from torch import nn

from app.errors import UserError
from app.legacy import multiflow
from app.legacy.multiflow_config import resolve
from app.legacy.unpickle import load_checkpoint
from tests.factories import tiny_module, tiny_recipe
from tests.legacy.made_checkpoint import adamw, checkpoint, state_dict, write

STAGE = tiny_recipe()["model"]["trunk"]["stages"][0]


def same_checkpoint(a: dict, b: dict) -> None:
    """Keys, order, tensors and optimizer state."""
    assert list(a) == list(b)
    assert list(a["state_dict"]) == list(b["state_dict"])
    for key, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][key])
    (old,), (new,) = a["optimizer_states"], b["optimizer_states"]
    assert list(old["state"]) == list(new["state"])
    for index, moments in old["state"].items():
        assert all(torch.equal(value, new["state"][index][key]) for key, value in moments.items())
    assert [group["params"] for group in old["param_groups"]] == [group["params"] for group in new["param_groups"]]
    for key, value in old["param_groups"][0].items():
        assert new["param_groups"][0][key] == value
    assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"])


def round_trip(path, folder) -> tuple[dict, dict]:
    loaded = multiflow.load(path)
    optimizer = adamw(loaded.module, loaded.optimizer_state)
    written = multiflow.export(loaded.module, folder, optimizer)
    assert written == folder / "last.ckpt"
    assert sorted(os.listdir(folder)) == ["config.yaml", "last.ckpt"]
    again = multiflow.load(written)
    assert again.module.recipe == loaded.module.recipe
    return load_checkpoint(path), load_checkpoint(written)


def test_export_is_the_inverse_of_loading(tmp_path):
    same_checkpoint(*round_trip(write(tmp_path / "last.ckpt"), tmp_path / "new" / "folder"))


def test_the_original_survives_the_round_trip(shared, tmp_path):
    old, new = round_trip(shared / "legacy_multiflow/last.ckpt", tmp_path / "exported")
    same_checkpoint(old, new)
    old, new = (resolve(of["hyper_parameters"]["cfg"]) for of in (old, new))
    assert new["model"] == old["model"]
    assert new["interpolant"] == {key: value for key, value in old["interpolant"].items() if key in new["interpolant"]}
    for key, value in new["experiment"]["training"].items():
        assert old["experiment"]["training"][key] == value
    beside = yaml.safe_load((shared / "legacy_multiflow/config.yaml").read_text())
    assert resolve(beside)["model"] == new["model"]


def test_what_is_exported_is_omegaconfs(tmp_path):
    multiflow.export(tiny_module(), tmp_path)
    beside = OmegaConf.load(tmp_path / "config.yaml")
    with zipfile.ZipFile(tmp_path / "last.ckpt") as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        named = {argument for _, argument, _ in pickletools.genops(archive.read(record)) if isinstance(argument, str)}
    assert "omegaconf.dictconfig DictConfig" in named  # what the original's own code finds there
    loaded = load_checkpoint(tmp_path / "last.ckpt")
    within = loaded["hyper_parameters"]["cfg"]
    assert within == OmegaConf.to_container(beside)
    assert within["model"]["ipa"]["no_qk_points"] == 2
    assert within["interpolant"]["sampling"]["num_timesteps"] == 100
    assert loaded["optimizer_states"] == []


def test_export_again_replaces_whole_files(tmp_path):
    for seed in (0, 1):
        multiflow.export(tiny_module(seed), tmp_path)
    found = load_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    expected = state_dict(tiny_module(1))
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "last.ckpt"]


def test_models_multiflow_cannot_hold_are_not_written(tmp_path):
    stage = tiny_recipe()["model"]["trunk"]["stages"][0]
    with pytest.raises(UserError, match="Multiflow has one stage"):
        multiflow.export(tiny_module(model={"trunk": {"stages": [stage, stage]}}), tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Original(lightning.LightningModule):
    """Parameters of the original's names and order, and nothing of its computation."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        super().__init__()
        for name, tensor in tensors.items():
            *parents, last = name.split(".")
            module = self
            for part in parents:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_parameter(last, nn.Parameter(torch.zeros_like(tensor)))
        self.began_at: tuple[int, int] | None = None

    def training_step(self, batch, batch_idx):
        if self.began_at is None:
            self.began_at = (self.current_epoch, self.global_step)
            self.restored = {name: p.detach().clone() for name, p in self.named_parameters()}
            self.moments = [self.optimizers().optimizer.state[p]["exp_avg"].clone() for p in self.parameters()]
        return sum(p.sum() for p in self.parameters())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-4)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.zeros(3, 1))


class SafeReader(TorchCheckpointIO):
    """Lightning's own reader would have to trust the pickles of OmegaConf; the counters and states are the same."""

    def load_checkpoint(self, path, *_args, **_options):
        return load_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_what_is_exported_as_the_original_would(tmp_path):
    made = checkpoint()
    loaded = multiflow.load(write(tmp_path / "last.ckpt", made))
    path = multiflow.export(loaded.module, tmp_path / "out", adamw(loaded.module, loaded.optimizer_state))
    original = Original(made["state_dict"])
    assert [name for name, _ in original.named_parameters()] == list(made["state_dict"])
    trainer = lightning.Trainer(
        max_epochs=6, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, plugins=[SafeReader()],
    )  # fmt: skip
    trainer.fit(original, ckpt_path=path)
    assert original.began_at == (4, 77)
    assert (trainer.current_epoch, trainer.global_step) == (6, 77 + 2 * 3)
    for name, value in made["state_dict"].items():
        assert torch.equal(original.restored[name], value)
    for found, expected in zip(original.moments, made["optimizer_states"][0]["state"].values(), strict=True):
        assert torch.equal(found, expected["exp_avg"])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"trunk": {"stages": [{"repeat": 1, "stages": [STAGE]}]}}, "one stage of IPA blocks"),
        ({"trunk": {"stages": [STAGE, STAGE]}}, "one stage of IPA blocks"),
        ({"head": {"kind": "none"}}, "the mlp head"),
        ({"trunk": {"stages": [{**STAGE, "share_weights": True}]}}, "weights of their own"),
        ({"trunk": {"stages": [STAGE], "num_recycles": 1}}, "does not recycle"),
        ({"trunk": {"stages": [{**STAGE, "dropout": {"train": 0.1, "infer": 0.1}}]}}, "one dropout"),
        ({"trunk": {"stages": [{**STAGE, "update_edge": False}]}}, "update_edge=False"),
    ],
)
def test_a_model_that_multiflow_cannot_hold_is_refused_and_nothing_written(tmp_path, model, says):
    with pytest.raises(UserError, match=f"^export: .*{says}"):
        multiflow.export(tiny_module(model=model), tmp_path / "out")
    assert not (tmp_path / "out").exists()
