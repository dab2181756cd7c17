"""Signals that end a run: the step under way is finished and saved, then it ends. A second Ctrl-C ends it at once."""

import signal
import threading
from types import FrameType

import torch
from lightning import Callback, LightningModule, Trainer

from app.signals import ENDING, tell


class StopOnSignal(Callback):
    """`received` tells which signal ended the run, or None.

    On several ranks all stop at the same step, when any of them got a signal. Schedulers repeat theirs and send them to
    every process: only a second Ctrl-C, a person's, gives the step up.

    With training ends its hold on signals, save after a scheduler's: the run still has to report and, after SIGUSR1, to
    be queued again, which neither the SIGTERM that follows is to prevent, nor that of a launcher, which ends the ranks
    that are left when one has ended. Then `restore` ends it.
    """

    def __init__(self):
        self.received: int | None = None
        self._step = 0
        self._before: dict = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in ENDING}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is None:
            again = "; again to stop at once" if number == signal.SIGINT else ""
            tell(f"\nstopping after this step{again}\n")
        if self.received is None or number == signal.SIGINT:  # a job to be requeued still is when SIGTERM follows
            self.received = number

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_) -> None:
        if trainer.global_step != self._step:  # else gradients are being accumulated
            self._step = trainer.global_step
            self.ends(trainer)

    def ends(self, trainer: Trainer) -> bool:
        """Whether any rank received a signal, and the run is to end; to be asked on all of them."""
        if number := self._anyones(trainer):
            trainer.should_stop = True
            self.received = number
        return bool(number)

    def _anyones(self, trainer: Trainer) -> int:
        """The signal that any rank received, the same on all of them; 0 for none. SIGUSR1 goes before others."""
        if trainer.world_size == 1:
            return self.received or 0  # without waiting for a device
        own = 0 if self.received is None else 1 + ENDING.index(self.received)
        places = torch.tensor(own, device=trainer.strategy.root_device)
        last = int(trainer.strategy.reduce(places, reduce_op="max"))
        return ENDING[last - 1] if last else 0

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt):
            self.received = self.received or signal.SIGINT
        self._end()

    def _end(self) -> None:
        if self.received in (None, signal.SIGINT):
            self.restore()

    def restore(self) -> None:
        """Have signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
