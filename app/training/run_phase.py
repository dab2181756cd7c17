"""The callback that tells a model what the run is doing: training, or anything else."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from app.phase import Phase, Phased


class RunPhase(Callback):
    """Keeps the run's phase, which dropout masks and other values by phase read (see `app.phase`).

    Training means the batches of `fit` less the validation among them; validation, test and prediction do not train.
    """

    def __init__(self):
        self.phase = Phase()

    @property
    def is_training(self) -> bool:
        return self.phase.is_training

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._share(module, self.phase)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._end(module)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._end(module)  # there is no teardown after an exception

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.phase.is_training = True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.phase.is_training = False

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.phase.is_training = False

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Within `fit`, training goes on, unless this was the check before it."""
        self.phase.is_training = trainer.state.fn == "fit" and not trainer.sanity_checking

    def _end(self, module: LightningModule) -> None:
        self.phase.is_training = False
        self._share(module, None)

    @staticmethod
    def _share(module: LightningModule, phase: Any) -> None:
        for part in module.modules():
            if isinstance(part, Phased):
                part.run_phase = phase
