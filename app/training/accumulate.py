"""Optimizer steps over as many batches as the data say, which Lightning knows as a fixed number only."""

from lightning import Callback, LightningModule, Trainer

from app.types import ProteinBatch


class AccumulateByShare(Callback):
    """After a batch whose share ends a step, Lightning makes the step; otherwise it only adds up gradients.

    Lightning steps where the number of batches that were begun is a multiple of `accumulate_grad_batches`, and divides
    the loss by that. Here it is 1 for a batch that ends a step, otherwise a power of two that does not divide the
    number, so that the module can undo the division without rounding. Lightning would also drop gradients by that
    number; the module keeps it from doing so, and they are dropped here, after the step.
    """

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: ProteinBatch, batch_idx: int
    ) -> None:
        begun = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        trainer.accumulate_grad_batches = 1 if batch.share.ends else 2 * (begun & -begun)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: dict, batch: ProteinBatch, batch_idx: int
    ) -> None:
        if batch.share.ends:
            for optimizer in trainer.optimizers:
                optimizer.zero_grad()
