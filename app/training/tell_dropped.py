"""What other ranks dropped is told by the first, whose log is the run's."""

from lightning import Callback, LightningModule, Trainer


class TellDropped(Callback):
    """At the end of each epoch and of the run. What the first rank drops itself is logged at once."""

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.datamodule.dropped_examples()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.datamodule.dropped_examples()
