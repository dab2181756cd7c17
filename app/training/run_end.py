"""When a run ends by itself: after so many optimizer steps or epochs, or never."""

from lightning import Callback, LightningModule, Trainer

from app.training.recipe import TrainerSettings

NEVER = 2**62  # optimizer steps

UNLIMITED = -1


def max_steps(settings: TrainerSettings) -> int:
    """For Lightning, which only counts exactly over several interruptions where it has a limit in steps."""
    return NEVER if settings.max_steps == UNLIMITED else settings.max_steps


def last_step(settings: TrainerSettings, trainer: Trainer, batch_idx: int) -> int | None:
    """The optimizer step at which the run will end, seen from a batch of its present epoch; None where it does not."""
    limits = [settings.max_steps] if settings.max_steps != UNLIMITED else []
    if settings.max_epochs != UNLIMITED:
        steps_an_epoch = trainer.datamodule.steps_an_epoch()
        done = batch_idx * steps_an_epoch // trainer.num_training_batches
        limits.append(trainer.global_step + (settings.max_epochs - trainer.current_epoch) * steps_an_epoch - done)
    return min(limits, default=None)


def is_reached(settings: TrainerSettings, step: int, epochs: int) -> bool:
    """Whether a run ends that has done so many steps and whole epochs."""
    return step >= settings.max_steps != UNLIMITED or epochs >= settings.max_epochs != UNLIMITED


def is_last_step(trainer: Trainer) -> bool:
    """Whether the run ends with the optimizer step that was just done."""
    return trainer.should_stop or trainer.global_step == trainer.max_steps


class StopAfterEpochs(Callback):
    """Stops the run with the last batch of its last epoch, or before its first where the rest of that epoch is none, as
    with fewer and larger batches than the run that is resumed."""

    def __init__(self, settings: TrainerSettings):
        self.settings = settings

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if is_reached(self.settings, trainer.global_step, trainer.current_epoch):
            trainer.should_stop = True

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_) -> None:
        if trainer.is_last_batch and is_reached(self.settings, trainer.global_step, trainer.current_epoch + 1):
            trainer.should_stop = True
