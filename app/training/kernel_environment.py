"""The callback between a run and its kernels: their environment, which of them serve, and whether the run trains."""

from typing import Any

import lightning
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from app import environment
from app.environment import EnvironmentSettings
from app.model.compiled import has_served
from app.ops import account, select
from app.ops.settings import KernelSettings
from app.phase import Phase, Phased
from app.training.console import say
from app.training.git_state import git_state
from app.training.module import CodesignModule
from app.training.recorded import RecordedPasses
from app.training.run_folder import RunFolder


class KernelEnvironment(Callback):
    """Sets and verifies what kernels read, chooses the backends of a run and says which they are.

    It also keeps the run's phase, which dropout masks and other values by phase read (see `app.phase`). Training means
    the batches of `fit` less the validation among them; validation, test and prediction do not train.
    """

    def __init__(
        self,
        kernels: KernelSettings | None = None,
        settings: EnvironmentSettings | None = None,
        folder: RunFolder | None = None,
    ):
        """kernels: a backend for each operation. settings: None where the process has been set up by another. folder:
        where it is kept what the run was computed with."""
        self.kernels, self.settings, self.folder = kernels or KernelSettings(), settings, folder
        self.phase = Phase()
        self._before: KernelSettings | None = None  # what held before the run
        self._news = select.News()
        self._replays = False  # whether passes are replayed, as of the last batch

    @property
    def is_training(self) -> bool:
        return self.phase.is_training

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._share(module, self.phase)
        self._before = select.settings()
        select.use(self.kernels)
        self._news = select.News()
        if self.settings is not None:
            environment.prepare(self.settings)
            environment.apply(self.settings)
            for fault in environment.faults(self.settings):
                say(f"warning: {fault}")

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        for backward in (True, False):  # self-conditioning needs no gradients
            select.prepare(module.device, dtype_of(str(trainer.precision)), backward, used=select.used_by(module))

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._end(module)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._end(module)  # there is no teardown after an exception

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.phase.is_training = True
        if self.settings is not None:
            say(f"on {module.device}, {trainer.precision}; {environment.in_words()}; {account.versions_in_words()}")
        self._keep(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        lines = self._news.lines()
        for line in lines:
            say(line)
        before, self._replays = self._replays, self._replayed(module)
        if lines or self._replays != before:
            self._keep(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.phase.is_training = False
        if recorded := _recorded(module):
            say(recorded.in_words())
        self._keep(trainer, module)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.phase.is_training = False

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Within `fit`, training goes on, unless this was the check before it."""
        self.phase.is_training = trainer.state.fn == "fit" and not trainer.sanity_checking

    @rank_zero_only
    def _keep(self, trainer: Trainer, module: LightningModule) -> None:
        if self.folder is not None:
            told = {"device": str(module.device), "precision": str(trainer.precision), "versions": _versions()}
            told |= {"git": git_state(), "environment": environment.report(), "kernels": account.kernels()}
            self.folder.tell(told | {"compiled": has_served(module.model), "cuda_graph": self._replayed(module)})

    @staticmethod
    def _replayed(module: LightningModule) -> bool:
        return bool((recorded := _recorded(module)) and recorded.serves)

    def _end(self, module: LightningModule) -> None:
        self.phase.is_training = False
        self._share(module, None)
        if self._before is not None:
            select.use(self._before)
            self._before = None

    @staticmethod
    def _share(module: LightningModule, phase: Phase | None) -> None:
        for part in module.modules():
            if isinstance(part, Phased):
                part.run_phase = phase


def _recorded(module: LightningModule) -> RecordedPasses | None:
    return module.step.recorded if isinstance(module, CodesignModule) else None


def _versions() -> dict[str, str]:
    return account.versions() | {"lightning": lightning.__version__}


def dtype_of(precision: str) -> torch.dtype:
    """That of the network's large tensors in a run of this precision, as Lightning names it."""
    return torch.bfloat16 if "bf16" in precision else torch.float32
