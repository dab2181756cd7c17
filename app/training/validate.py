"""Validation in the middle of training, which takes no notice of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from app.data.ledger import Ledger
from app.training import held_out_losses, trial_designs
from app.training.console import say
from app.training.counts import Counts
from app.training.ema import Ema
from app.training.example_means import ExampleMeans
from app.training.held_out_losses import SEED
from app.training.in_halves import Measured, measured_in_halves
from app.training.interrupt import StopOnSignal
from app.training.recipe import Recipe
from app.training.run_end import is_reached
from app.training.strategies import reshard
from app.training.throughput import Throughput
from app.training.trial_designs import sampled

LOSS, COUNT, SECONDS = "validation_loss", "validation_examples", "validation_seconds"
LEFT_OUT, DESIGNS_LEFT_OUT = "validation_left_out", "validation_designs_left_out"
"""How many examples are missing from the losses, and how many designs, for lack of memory; of a complete line none."""


def columns(recipe: Recipe) -> tuple[str, ...]:
    """Columns of the log that validation adds."""
    if not is_on(recipe):
        return ()
    losses = held_out_losses.columns(recipe.validation.times)
    designs = (*trial_designs.COLUMNS, DESIGNS_LEFT_OUT) if recipe.validation.samples else ()
    return (*losses, COUNT, LEFT_OUT, *designs, SECONDS)


def is_on(recipe: Recipe) -> bool:
    return recipe.trainer.validate_every is not None and bool(recipe.validation.times or recipe.validation.samples)


class Validate(Callback):
    """Losses of what is held out, and a short sampling run, every so many optimizer steps and at the end of a run that
    was longer: a line to every logger.

    It comes before the checkpoint of its step, which hence stands for a validation that was done: a run that is killed
    meanwhile goes on from an earlier one, and does it again. A signal cuts it short, so that the run is soon saved, and
    what was cut short comes first when the run goes on; save at the run's own end, after which nothing would.
    `validated_step` is the step of the last one; lines of later steps are to be written anew.

    The average of the weights, where there is one, is what is validated. All generators are afterwards as before.
    """

    state_key = "validation"

    def __init__(self, recipe: Recipe, stop: StopOnSignal, ema: Ema | None, throughput: Throughput, counts: Counts):
        self.recipe, self.stop, self.ema, self.throughput, self.counts = recipe, stop, ema, throughput, counts
        self.ledger = Ledger()  # of sampling; losses take other memory, and have their own
        self.every = recipe.trainer.validate_every
        self.means = ExampleMeans(columns(recipe), may_lack=trial_designs.SHARES)
        self.validated_step: int | None = None
        self._step = 0
        self._to_its_end = self._cut_short = self._owed = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.means.to(module.device)
        self._step = step = trainer.global_step
        if trainer.max_steps >= self.every:
            self._tell_what_is_lacking(trainer, module)
        if self.validated_step is None:
            self.validated_step = step
        self._owed = self.validated_step < step and step % self.every == 0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Not earlier: callbacks have their turn before the module when training starts."""
        if self._owed:
            self._owed = False
            self._validate(trainer, module, ends=False)

    def _tell_what_is_lacking(self, trainer: Trainer, module: LightningModule) -> None:
        nothing_held_out = trainer.datamodule.held_out is None
        if (nothing_held_out or not self.recipe.validation.times) and not self._pieces(trainer, module):
            say("nothing to validate: nothing is held out (data.validation), or no times, and nothing to sample")
        elif nothing_held_out and self.recipe.validation.times:
            say("nothing is held out: validation takes no losses (data.validation)")

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step == self._step:  # gradients are being accumulated
            return
        self._step = step
        ends = is_reached(self.recipe.trainer, step, trainer.current_epoch + trainer.is_last_batch)
        if step % self.every == 0 or (ends and step > self.every):
            self._validate(trainer, module, ends)

    def _validate(self, trainer: Trainer, module: LightningModule, ends: bool) -> None:
        began = time.perf_counter()
        self._to_its_end, self._cut_short = ends, False
        if module.step.recorded is not None:
            module.step.recorded.forget()  # validation is to have as much memory as without it
        self.means.reset()
        self.means.update([], {})  # torchmetrics warns of one that had no update: so of a rank's without examples
        with self.throughput.paused(), isolate_rng():
            torch.manual_seed(SEED)  # for dropout that stays on in inference
            if self.recipe.validation.times:
                self._take_losses(trainer)
            self._sample(trainer, module)
            reshard(module)
        if not self._cut_short:
            self._write(trainer, time.perf_counter() - began)

    def _take_losses(self, trainer: Trainer) -> None:
        """By Lightning's own loop, which calls the module's `validation_step`. Where nothing is held out it does
        nothing."""
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False
        first = trainer._logger_connector._first_loop_iter  # as Lightning keeps it where it validates by itself
        trainer.validating = True
        loop.run()
        trainer.training = True
        trainer._logger_connector._first_loop_iter = first

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self._is_to_stop(trainer):
            raise StopIteration  # ends Lightning's loop

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Measured, *_: Any) -> None:
        self._note(outputs, LEFT_OUT)

    @torch.no_grad()
    def _sample(self, trainer: Trainer, module: LightningModule) -> None:
        mine = trial_designs.of_rank(self._pieces(trainer, module), trainer.global_rank, trainer.world_size)
        average = nullcontext() if self.ema is None else self.ema.in_place(module)
        with average, _in_eval_mode(module), trainer.precision_plugin.val_step_context():
            for task, make in mine:
                if self._is_to_stop(trainer):
                    return
                batch = trainer.strategy.batch_to_device(make())
                run = partial(sampled, module, task)
                self._note(measured_in_halves(run, batch, self.ledger, module.step.ranks), DESIGNS_LEFT_OUT)

    def _note(self, measured: Measured, left_out: str) -> None:
        for names, numbers in measured:
            self.means.update(names, {left_out: torch.ones(len(names))} if numbers is None else numbers)

    def _pieces(self, trainer: Trainer, module: LightningModule) -> list[trial_designs.Piece]:
        return trial_designs.pieces(self.recipe.validation, trainer.datamodule, module.model.has_sequence_head)

    def _is_to_stop(self, trainer: Trainer) -> bool:
        """To be asked on all ranks."""
        if not self._to_its_end and not self._cut_short:
            self._cut_short = self.stop.ends(trainer)
        return self._cut_short

    def _write(self, trainer: Trainer, seconds: float) -> None:
        found = self.means.compute()
        left_out = {name: found.pop(name)[1] for name in (LEFT_OUT, DESIGNS_LEFT_OUT) if name in found}
        self.counts.update(skipped_oom=sum(left_out.values()))
        row = {column: mean for column, (mean, _) in found.items()}
        row = held_out_losses.over_times(row, self.recipe.validation.times) | row
        counts = [count for column, (_, count) in found.items() if column.startswith(LOSS)]
        row |= ({COUNT: counts[0]} if counts else {}) | left_out | {SECONDS: seconds}
        if self._step % self.every == 0:
            self.validated_step = self._step
        if row.keys() == {SECONDS}:  # nothing was there to measure
            return
        for logger in trainer.loggers:
            logger.log_metrics(row, step=self._step)
        say(f"step {self._step}  {in_words(row)}")

    def state_dict(self) -> dict[str, Any]:
        return {"validated_step": self.validated_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.validated_step = int(state["validated_step"])


def in_words(row: dict[str, float]) -> str:
    """A line of the log, shortened."""
    words = {
        LOSS: "validation loss {:.3f}",
        "designs_bonds": "bonds {:.0%}",
        "designs_angles": "angles {:.0%}",
        "designs_ca_ca": "CA-CA {:.0%}",
        "designs_clashes": "clashes {:.1f} per 100 residues",
        "designs_helix": "helix {:.0%}",
        "designs_strand": "strand {:.0%}",
        "inverse_folding_recovery": "recovery {:.0%}",
        "forward_folding_tm_score": "TM-score {:.2f}",
        LEFT_OUT: "{} left out of the losses: out of memory",
        DESIGNS_LEFT_OUT: "{} left out of the designs: out of memory",
        SECONDS: "in {:.1f} s",
    }
    return "  ".join(text.format(row[name]) for name, text in words.items() if name in row)


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
