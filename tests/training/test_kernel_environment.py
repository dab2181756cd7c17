"""The run's phase reaches every module that asks for it, in training, validation, prediction, and after."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from app.blocks.parts.dropout import Dropout
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
