"""Ctrl-C: the step under way is finished and saved, then the run ends. A second Ctrl-C ends it at once."""

import os
import signal
import threading
from types import FrameType

from lightning import Callback, LightningModule, Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what schedulers send


class StopOnSignal(Callback):
    """`received` tells which signal ended the run, or None.

    On several ranks all stop at the same step, when any of them got a signal.
    """

    def __init__(self):
        self.received: int | None = None
        self._step = 0
        self._before: dict = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        os.write(2, b"\nstopping after this step; again to stop at once\n")  # print is not safe in a signal handler

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_) -> None:
        if trainer.global_step != self._step:  # else gradients are being accumulated
            self._step = trainer.global_step
            if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
                trainer.should_stop = True
                self.received = self.received or signal.SIGINT

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt):
            self.received = self.received or signal.SIGINT
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
