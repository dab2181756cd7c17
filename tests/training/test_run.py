"""train.py from the command line to what it writes."""

import math
import os
import subprocess
import sys

import pytest
import torch
import yaml

from app.errors import UserError
from app.training import fit
from app.training.checkpoint import load_module
from app.training.module import CodesignModule
from app.training.recipe import TrainerSettings, parse_recipe
from app.training.run import train
from tests.training import runs
from tests.training.runs import ROOT, arguments, files, rows


def test_a_run_writes_its_checkpoints_metrics_and_recipe_and_nothing_else(tmp_path, monkeypatch, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    made = arguments(tmp_path)
    monkeypatch.chdir(elsewhere)
    assert train([*made, "trainer.max_steps=4", "trainer.log_every=2", f"out={tmp_path / 'out'}"]) == 0
    out = tmp_path / "out"
    told = {"metrics.csv", "recipe.yaml", "machine.yaml", "summary.json", "train.log"}
    assert files(out) == {"checkpoints/last.ckpt", "checkpoints/step-000004.ckpt"} | told
    assert not files(elsewhere)
    recipe = parse_recipe(yaml.safe_load((out / "recipe.yaml").read_text()))
    assert (recipe.name, recipe.trainer.max_steps, recipe.model.c_s) == ("tiny", 4, 16)
    assert [row["step"] for row in rows(out)] == ["2", "4"]
    for row in rows(out):
        assert float(row["lr"]) == recipe.optimizer.lr
        assert math.isfinite(float(row["train_loss"])) and 8 <= float(row["length"]) <= 10
    said = capsys.readouterr().out
    assert "until step 4" in said and "step 4  epoch 0  loss" in said and "Tip" not in said

    saved = runs.checkpoint(out)  # by torch's weights-only unpickler, with nothing allowed besides
    assert saved["trunkline"]["recipe"] == recipe.model_dump(mode="json")
    assert saved["global_step"] == 4
    module = load_module(out / "checkpoints" / "last.ckpt")
    assert module.recipe == recipe and not module.training and (module.restored_epoch, module.restored_step) == (0, 4)
    first = CodesignModule(recipe)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), module.parameters(), strict=True))


def test_checkpoints_are_kept_by_the_rule(tmp_path):
    out = tmp_path / "out"
    settings = ("trainer.checkpoint_every=2", "trainer.keep_checkpoints=2", "trainer.max_steps=7")
    train(arguments(tmp_path, *settings, f"out={out}"))
    assert {path.name for path in (out / "checkpoints").iterdir()} == {
        "last.ckpt",
        "step-000006.ckpt",
        "step-000007.ckpt",
    }
    assert os.path.samefile(out / "checkpoints/last.ckpt", out / "checkpoints/step-000007.ckpt")
    train([f"resume={out}/checkpoints/last.ckpt", "trainer.max_steps=9", "trainer.keep_checkpoints=null"])
    assert {path.name for path in (out / "checkpoints").glob("step*")} == {
        "step-000006.ckpt",
        "step-000007.ckpt",
        "step-000008.ckpt",
        "step-000009.ckpt",
    }


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(arguments(tmp_path, "trainer.max_steps=2", f"seed={seed}", f"out={tmp_path / name}"))
    runs.assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert rows(tmp_path / "a") == rows(tmp_path / "b") != rows(tmp_path / "c")


def test_warm_start(tmp_path, capsys):
    """Weights go along; step, optimizer and everything of the recipe but the model are new."""
    train(arguments(tmp_path, "trainer.max_steps=3", f"out={tmp_path / 'first'}"))
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    warm = ("trainer.max_steps=1", "seed=9", f"weights={last}", "optimizer.lr=1e-12", "optimizer.weight_decay=0")
    train(arguments(tmp_path, *warm, f"out={tmp_path / 'second'}"))
    saved = runs.checkpoint(tmp_path / "second")
    assert saved["global_step"] == 1 and saved["optimizer_states"][0]["state"][0]["step"] == 1
    for name, tensor in runs.average(tmp_path / "first").items():
        torch.testing.assert_close(saved["state_dict"][name], tensor, rtol=0, atol=1e-9)
    wider = [text.replace("edge_embed.num_bins=6", "edge_embed.num_bins=7") for text in arguments(tmp_path)]
    deeper = [text.replace("0.depth=2", "0.depth=3") for text in arguments(tmp_path)]
    for name, other, told in (
        ("wider", wider, "  not taken: edge_embed: num_bins is 6 there and 7 here"),
        ("deeper", deeper, "  new: trunk.stages.0.2, "),
    ):
        start = ("trainer.max_steps=1", f"weights={last}", "optimizer.lr=1e-12", "optimizer.weight_decay=0")
        train([*other, *start, f"out={tmp_path / name}"])
        assert told in capsys.readouterr().out
        first, then = runs.average(tmp_path / "first"), runs.weights(tmp_path / name)
        for key in ("model.trunk.stages.0.1.attention.q.weight", "model.head.layers.4.bias"):
            torch.testing.assert_close(then[key], first[key], rtol=0, atol=1e-9)
    narrow = [text.replace("c_s=16", "c_s=24").replace("c_z=8", "c_z=12") for text in arguments(tmp_path)]
    with pytest.raises(
        UserError, match=r"nothing of it fits the model of recipe \w+: node_embed: token.weight is \[21, 16\] there"
    ):
        train([*narrow, f"weights={last}", f"out={tmp_path / 'third'}"])
    with pytest.raises(UserError, match="resume= and weights=: give one"):
        train([f"weights={last}", f"resume={last}"])
    assert not (tmp_path / "third").exists()


def test_mixed_precision_keeps_frames_losses_and_optimizer_in_float32(tmp_path, monkeypatch):
    seen = []
    losses = CodesignModule.losses

    def watched(self, batch):
        assert torch.is_autocast_enabled("cpu")
        prediction = self.model(batch)
        by_example = losses(self, batch)
        seen.extend([prediction.pred_trans, prediction.pred_rotmats, batch.trans_t, *by_example.values()])
        return by_example

    monkeypatch.setattr(CodesignModule, "losses", watched)
    made = arguments(tmp_path, "trainer.precision=bf16-mixed", "flow.self_condition_share=1", "trainer.max_steps=2")
    train([*made, f"out={tmp_path / 'out'}"])
    assert seen and all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in seen)
    saved = runs.checkpoint(tmp_path / "out")
    moments = [
        state[name] for state in saved["optimizer_states"][0]["state"].values() for name in ("exp_avg", "exp_avg_sq")
    ]
    assert all(tensor.dtype == torch.float32 for tensor in (*saved["state_dict"].values(), *moments))
    assert len(saved["optimizer_states"][0]["state"]) == len(
        list(load_module(tmp_path / "out/checkpoints/last.ckpt").parameters())
    )
    assert all(math.isfinite(float(row["train_loss"])) for row in rows(tmp_path / "out"))


def test_clipping_bounds_the_gradient(tmp_path, monkeypatch):
    norms = []

    def before_step(self, optimizer):
        gradients = [p.grad.norm() for p in self.parameters() if p.grad is not None]
        norms.append(torch.stack(gradients).norm().item())

    monkeypatch.setattr(CodesignModule, "on_before_optimizer_step", before_step)
    train(arguments(tmp_path, "trainer.max_steps=2", f"out={tmp_path / 'free'}"))
    train(arguments(tmp_path, "trainer.max_steps=2", "trainer.gradient_clip=0.5", "trainer.deterministic=true",
                    f"out={tmp_path / 'clipped'}"))  # fmt: skip
    torch.use_deterministic_algorithms(False)
    assert min(norms[:2]) > 0.5
    one, other = (runs.checkpoint(tmp_path / name)["optimizer_states"][0]["state"] for name in ("free", "clipped"))
    size = {
        name: torch.stack([s["exp_avg"].norm() for s in states.values()]).norm()
        for name, states in (("free", one), ("clipped", other))
    }
    assert size["clipped"] < size["free"] and size["clipped"] < 0.1


def test_accelerators(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert fit.accelerator_of(TrainerSettings(accelerator="auto")) == "cpu"
    for name in ("gpu", "mps"):
        with pytest.raises(
            UserError, match=f"trainer.accelerator={name} is not available here: use trainer.accelerator=auto"
        ):
            fit.accelerator_of(TrainerSettings(accelerator=name))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert fit.accelerator_of(TrainerSettings(accelerator="auto")) == "mps"
    with pytest.raises(UserError, match="bf16-mixed: a Mac's GPU runs float32 only"):
        fit.accelerator_of(TrainerSettings(accelerator="auto", precision="bf16-mixed"))


def test_the_command_itself(tmp_path):
    """Exit status, where messages go, and no word of Lightning's."""
    with runs.in_own_process(
        *arguments(tmp_path, "trainer.max_steps=1", f"out={tmp_path / 'out'}"), cwd=tmp_path
    ) as process:
        out, error = process.communicate(timeout=120)
    assert process.returncode == 0
    first_words = [line.split()[0] for line in out.splitlines()]
    prepared = f"{tmp_path / 'structures'}:"
    assert first_words == ["recipe", "until", prepared, "expected", "on", "kernels", "step", "done"]
    assert "\non cpu, 32-true; PYTORCH_ENABLE_MPS_FALLBACK=" in out
    assert all(line.startswith("preparing structures") for line in error.splitlines()), error
    assert len((ROOT / "train.py").read_text().splitlines()) <= 60
    with runs.in_own_process("recipe=nonsense") as process:
        out, error = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert error.startswith("error: recipe=nonsense: no such option") and error.count("\n") == 1
    helped = subprocess.run([sys.executable, ROOT / "train.py", "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "trainer: auto, cpu, ddp, fsdp, gpu, mps" in helped.stdout
