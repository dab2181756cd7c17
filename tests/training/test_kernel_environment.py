"""The run's phase reaches every module that asks for it, in training, validation, prediction, and after."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from app.blocks.parts.dropout import Dropout
from app.errors import UserError
from app.ops import select
from app.phase import ByPhase, Phase, Phased
from app.training.kernel_environment import KernelEnvironment
from app.training.module import CodesignModule
from app.training.run import train
from tests.training.runs import arguments


class Watched(lightning.LightningModule):
    """Notes, at every step, what a module inside believes."""

    def __init__(self, leave_training_mode_on: bool = False):
        super().__init__()
        self.inside, self.linear = Phased(), torch.nn.Linear(1, 1)
        self.leave_on = leave_training_mode_on
        self.seen: list[tuple[str, bool]] = []
        self.raises = False

    def note(self, step: str) -> None:
        self.seen.append((step, self.inside.is_training))

    def training_step(self, batch):
        if self.raises:
            raise RuntimeError("crash")
        self.note("train")
        self.eval()
        self.note("eval within training")
        self.train()
        return self.linear(batch).sum()

    def on_validation_model_eval(self) -> None:
        if not self.leave_on:
            super().on_validation_model_eval()

    def validation_step(self, batch):
        self.note("validate")

    def predict_step(self, batch):
        self.note("predict")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(callback: KernelEnvironment, folder, **options) -> lightning.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[callback], default_root_dir=folder,
        enable_model_summary=False, **quiet, **options,
    )  # fmt: skip


def loader() -> DataLoader:
    return DataLoader(torch.ones(2, 1), batch_size=1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("leave_on", [False, True])
@pytest.mark.parametrize("sanity", [0, 1])
def test_training_validation_and_prediction_are_told_apart(tmp_path, leave_on, sanity):
    module, callback = Watched(leave_on), KernelEnvironment()
    trainer(callback, tmp_path, num_sanity_val_steps=sanity).fit(module, loader(), loader())
    steps = [("train", True), ("eval within training", False)]
    checks, epoch = [("validate", False)] * sanity, [*steps * 2, *[("validate", False)] * 2]
    assert module.seen == [*checks, *epoch, *epoch]
    assert not callback.is_training

    module.seen.clear()
    module.train()
    trainer(callback, tmp_path).predict(module, loader())
    assert module.seen == [("predict", False)] * 2


@pytest.mark.filterwarnings("ignore")
def test_without_a_trainer_it_follows_the_mode_of_the_module_also_after_a_crash(tmp_path):
    module, callback = Watched(), KernelEnvironment()
    assert module.train().inside.is_training
    assert not module.eval().inside.is_training
    module.raises = True
    with pytest.raises(RuntimeError, match="crash"):
        trainer(callback, tmp_path).fit(module, loader())
    assert not callback.is_training
    assert module.train().inside.is_training
    assert not module.eval().inside.is_training


def test_a_value_may_differ_by_phase():
    module = Phased()
    assert module.now(3) == module.eval().now(3) == 3
    value = ByPhase[float](train=0.25, infer=0.0)
    assert (module.train().now(value), module.eval().now(value)) == (0.25, 0.0)


def test_dropout_follows_the_phase_of_the_run():
    dropout, x = Dropout(ByPhase[float](train=0.5, infer=0.0)).train(), torch.ones(64)
    assert not torch.equal(dropout(x), x)
    dropout.run_phase = Phase(is_training=False)
    assert torch.equal(dropout(x), x)
    dropout.run_phase = Phase(is_training=True)
    assert not torch.equal(dropout(x), x)
    assert torch.equal(dropout.eval()(x), x)


def test_runs_of_train_py_tell_their_model(tmp_path, monkeypatch):
    seen = []
    losses = CodesignModule.losses

    def watched(self, batch):
        phases = {id(part.run_phase) for part in self.modules() if isinstance(part, Phased)}
        parts = [part.is_training for part in self.modules() if isinstance(part, Phased)]
        seen.append((len(phases), all(parts), len(parts) > 0))
        return losses(self, batch)

    monkeypatch.setattr(CodesignModule, "losses", watched)
    train(arguments(tmp_path, "trainer.max_steps=2", f"out={tmp_path / 'out'}"))
    assert seen == [(1, True, True)] * 2


def test_a_run_chooses_its_kernels_says_so_once_and_puts_back_what_was(tmp_path, capsys):
    before = select.settings()
    train(arguments(tmp_path, "trainer.max_steps=3", "kernels=reference", f"out={tmp_path / 'out'}"))
    said = capsys.readouterr().out
    assert said.count("kernels (") == 1 and "invariant_point_attention=reference" in said
    assert select.settings() == before


def test_a_resumed_run_keeps_its_kernels_and_not_its_environment(tmp_path, capsys, restored_precision):
    given = arguments(tmp_path, "trainer.max_steps=1", f"out={tmp_path / 'out'}")
    train([*given, "kernels.invariant_point_attention=reference", "kernels.self_attention=reference"])
    capsys.readouterr()
    last = tmp_path / "out/checkpoints/last.ckpt"
    environment = ["environment=tf32", "environment.variables.CUEQ_TRITON_TUNING=AOT"]
    train([f"resume={last}", "trainer.max_steps=2", "kernels.self_attention=auto", *environment])
    said = capsys.readouterr().out
    assert "kernels.self_attention: reference -> auto" in said
    assert "invariant_point_attention=reference" in said and "CUEQ_TRITON_TUNING=AOT" in said
    assert "matmul_precision=high;" in said and "environment" not in (tmp_path / "out/recipe.yaml").read_text()


def test_a_run_computes_in_the_precision_that_its_environment_says(tmp_path, monkeypatch, restored_precision):
    found, losses = [], CodesignModule.losses

    def watched(self, batch):
        found.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return losses(self, batch)

    monkeypatch.setattr(CodesignModule, "losses", watched)
    for name, typed in {"plain": (), "fast": ("environment=tf32",)}.items():
        train(arguments(tmp_path, "trainer.max_steps=1", *typed, f"out={tmp_path / name}"))
    assert found == [("highest", False), ("high", True)]


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_kernels_are_tried_before_the_first_step_as_it_will_call_them(tmp_path, monkeypatch, precision, dtype):
    """Forward alone as well, for self-conditioning, and in the type of the run."""
    tried = []

    def prepare(device, dtype, backward, used):
        tried.append((device.type, dtype, backward, used))

    monkeypatch.setattr(select, "prepare", prepare)
    given = arguments(tmp_path, "trainer.max_steps=1", f"trainer.precision={precision}")
    train([*given, f"out={tmp_path / 'out'}"])
    used = {"invariant_point_attention", "self_attention", "edge_embedding"}
    assert sorted(tried, key=lambda call: call[2]) == [("cpu", dtype, backward, used) for backward in (False, True)]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (
            "kernels.invariant_point_attention=triton",
            r"attention=triton: .*set kernels\.invariant_point_attention=auto",
        ),
        ("kernels.triangle_attention=torch", r"kernels\.triangle_attention has no effect: nothing in this model"),
        ("kernels.edge_transition=nope", r"kernels\.edge_transition='nope': wanted 'auto', 'reference'"),
        ("kernels=nope", r"kernels=nope: no such option"),
        ("environment.variables.CUEQUI_ENABLE=1", r"unknown key environment\.variables\.CUEQUI_ENABLE"),
        ("environment.matmul_precision=low", r"environment\.matmul_precision='low'"),
    ],
)
def test_kernels_that_cannot_be_are_told_before_anything_is_written(tmp_path, typed, says):
    with pytest.raises(UserError, match=says):
        train(arguments(tmp_path, "trainer.max_steps=1", typed, f"out={tmp_path / 'out'}"))
    assert not (tmp_path / "out").exists()
