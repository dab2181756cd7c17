"""When checkpoints are written, under which names, and which of them stay."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from app.errors import UserError
from app.training.checkpoint_io import link
from app.training.run_end import is_last_step
from app.training.run_folder import RunFolder
from app.training.strategies import is_finite


class SaveCheckpoints(Checkpoint):
    """`last.ckpt` and `step-000100.ckpt` (two names of one file), every `every` optimizer steps and at the run's end.

    `last.ckpt` is always the newest. Of the others the `keep` newest stay (None: all).

    A checkpoint is only ever written right after an optimizer step, while its batch is ending, the end of the run
    included: there no gradient is pending, and Lightning's counters say where in the epoch the run stands.
    """

    def __init__(self, folder: RunFolder, every: int, keep: int | None):
        self.folder, self.every, self.keep = folder, every, keep
        self._step = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_) -> None:
        step = trainer.global_step
        if step == self._step:  # gradients are being accumulated
            return
        self._step = step
        if step % self.every == 0 or is_last_step(trainer):
            self._save(trainer, module, step)

    def _save(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        finite = all(is_finite(parameter) for parameter in module.parameters())
        if not trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise UserError(
                f"step {step}: the weights are no longer finite, training diverged: go on from an earlier checkpoint"
                " with a smaller optimizer.lr or with trainer.gradient_clip=1"
            )
        for logger in trainer.loggers:
            logger.save()  # the lines up to this step are on the disk before the checkpoint that counts on them
        trainer.datamodule.dropped_examples()  # of all ranks, so that the one that writes knows them
        trainer.save_checkpoint(self.folder.last)
        if failed := trainer.strategy.broadcast(trainer.strategy.checkpoint_io.failed):
            raise failed
        if trainer.is_global_zero:
            link(self.folder.last, self.folder.checkpoint_of(step))
            self._remove_old()

    def _remove_old(self) -> None:
        if self.keep is not None:
            for path in self.folder.kept()[: -self.keep]:
                path.unlink(missing_ok=True)
