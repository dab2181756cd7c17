"""How far a run is: a bar on a terminal, a line for each line of the log elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from app.training.console import console, say
from app.training.run_end import last_step
from app.types import ProteinBatch


class StepBar(ProgressBar):
    """Optimizer steps of the whole run, with loss, length and size of the batch at hand."""

    INTERVAL = 0.1  # seconds; reading a loss waits for the device

    def __init__(self):
        super().__init__()
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._shown = 0.0
        self._enabled = True

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: ProteinBatch, batch_idx: int
    ) -> None:
        """Not earlier: the thread that draws must not be there yet when data workers are forked."""
        if self._enabled and self._progress is None:
            columns = (
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            total = last_step(module.recipe.trainer, trainer, batch_idx)
            self._progress = Progress(*columns, TextColumn("{task.description}"), console=console)
            self._task = self._progress.add_task("", total=total, completed=trainer.global_step)
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: dict, batch: ProteinBatch, batch_idx: int
    ) -> None:
        if self._progress is not None and time.monotonic() - self._shown > self.INTERVAL:
            self._shown = time.monotonic()
            size, length = batch.res_mask.shape
            loss = f"loss {outputs['losses']['train_loss'].mean().item():.3f}" if "losses" in outputs else "no memory"
            description = f"epoch {trainer.current_epoch}  {loss}  length {length}  batch {size}"
            self._progress.update(self._task, completed=trainer.global_step, description=description)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=trainer.global_step)
        self._stop()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class StepLines(Logger):
    """The lines of the log, shortened."""

    name, version = "lines", ""  # Lightning asks

    def log_hyperparams(self, params: Any, *_args, **_kwargs) -> None:
        """They are in recipe.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "train_loss" not in metrics:  # of validation, which speaks for itself
            return
        nothing = float("nan")  # where all steps were skipped
        say(
            f"step {step}  epoch {metrics['epoch']}  loss {metrics.get('train_loss', nothing):.3f}"
            f"  examples {metrics['examples']}  length {metrics.get('length', nothing):.0f}"
            f"  {metrics['residues_per_second']:.0f} residues/s"
            f"  waited {metrics['waiting_seconds']:.1f} s"
        )
