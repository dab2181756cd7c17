"""What a run's folder tells of the run as a whole: summary.json, curves.png, report.html, and its log's last word."""

import csv
import json
import math
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from app.data.worker_death import told_if_a_worker_died
from app.errors import UserError
from app.files.json_object import json_object
from app.files.whole import write_whole
from app.training.console import keep
from app.training.counts import Counts
from app.training.rank_states import of_all_ranks, restore
from app.training.recipe import CallbacksSettings
from app.training.run_folder import RunFolder
from app.training.skipped import AllSkipped
from app.training.validate import LEFT_OUT
from app.types import ProteinBatch

MONITORED = ("validation_loss", "train_loss")
"""Columns of the log by whose lowest line a run's `best` goes: the first that there is."""


class RunReport(Checkpoint):
    """Writes summary.json with every checkpoint and when the run ends, however it does; curves.png and report.html at
    most every `DRAW_EVERY` seconds and at the end.

    Counts and seconds go on where a run is resumed. It is Lightning's `Checkpoint` in order to have its turn after the
    one that saves.
    """

    DRAW_EVERY = 300
    state_key = "report"

    def __init__(self, folder: RunFolder, counts: Counts, wanted: CallbacksSettings):
        self.folder, self.counts, self.wanted = folder, counts, wanted
        self._before, self._began, self._drawn = 0.0, time.monotonic(), time.monotonic()
        self._epochs, self._begun, self._saved = 0, False, False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.counts.to(module.device)
        self._began = self._drawn = time.monotonic()
        self._epochs, self._begun = trainer.current_epoch, True

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: ProteinBatch, batch_idx: int
    ) -> None:
        """At the end of the batch a checkpoint may have been written, which is to count this one."""
        self.counts.update(residues_seen=batch.res_mask.sum().long())

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self._epochs = trainer.current_epoch + trainer.is_last_batch  # Lightning's own count takes in those cut short
        if self._saved:
            self._saved = False
            self._write(trainer)
            if time.monotonic() - self._drawn > self.DRAW_EVERY:
                self._draw(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer)
        self._draw(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        exception = told_if_a_worker_died(exception) or exception
        told = isinstance(exception, UserError)
        keep(f"error: {exception}" if told else "".join(traceback.format_exception(exception)).rstrip())
        alike = trainer.world_size == 1 or isinstance(exception, AllSkipped)
        if self._begun and alike:  # else other ranks may no longer be there to ask
            with suppress(RuntimeError, UserError):  # a device that failed, a full disk: the exception tells of it
                self._write(trainer)
                self._draw(trainer)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._saved = True
        dropped = len(trainer.datamodule.dropped_examples())
        checkpoint["callbacks"][self.state_key]["dropped_examples"] = dropped

    def _write(self, trainer: Trainer) -> None:
        counts = self.counts.compute() | {"dropped_examples": len(trainer.datamodule.dropped_examples())}
        if trainer.is_global_zero:
            _summarise(self.folder, trainer.global_step, int(self._epochs), counts, self.seconds)

    def _draw(self, trainer: Trainer) -> None:
        self._drawn = time.monotonic()
        if trainer.is_global_zero:
            _draw(self.folder, self.wanted)

    @property
    def seconds(self) -> float:
        """Of training, in all processes that the run has had."""
        return self._before + time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        return {"counts": of_all_ranks(self.counts), "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self.counts, state["counts"])
        self._before = float(state["seconds"])


def report_ended(
    folder: RunFolder, step: int, epochs: int, callbacks: dict[str, Any], wanted: CallbacksSettings
) -> None:
    """What a run that was killed right after its last checkpoint could not write any more; nothing where it did.

    callbacks: what that checkpoint, of that step, keeps of the run's callbacks.
    """
    state = callbacks.get(RunReport.state_key, {})
    if "dropped_examples" not in state:  # of another program
        return
    if _told_step(folder) != step:
        counts = Counts()
        restore(counts, state["counts"])
        counts.update()  # torchmetrics warns of one that had none
        told = counts.compute() | {"dropped_examples": int(state["dropped_examples"])}
        _summarise(folder, step, epochs, told, float(state["seconds"]))
    if not _is_drawn(folder, wanted):
        _draw(folder, wanted)


def _told_step(folder: RunFolder) -> int | None:
    return (json_object(folder.summary) or {}).get("steps")


def _summarise(folder: RunFolder, step: int, epochs: int, counts: dict[str, int], seconds: float) -> None:
    kept = folder.kept()
    told = {"steps": step, "epochs": epochs} | counts | {"best": best(folder.metrics)}
    told |= {"last_checkpoint": str(kept[-1].relative_to(folder.path)) if kept else None}
    text = json.dumps(told | {"seconds": round(seconds, 3)}, indent=2, allow_nan=False) + "\n"
    write_whole(folder.summary, lambda file: file.write(text.encode()))


def _is_drawn(folder: RunFolder, wanted: CallbacksSettings) -> bool:
    """Whether the pictures are there that are wanted, and of the last summary: they are drawn after it."""
    pictures = [folder.curves] * wanted.curves + [folder.report] * wanted.report
    summary = folder.summary.stat().st_mtime_ns
    return all(picture.exists() and picture.stat().st_mtime_ns >= summary for picture in pictures)


def _draw(folder: RunFolder, wanted: CallbacksSettings) -> None:
    if not folder.metrics.exists():
        return
    if wanted.curves:
        from app.training.curves import draw  # matplotlib takes a second to import

        draw(folder.metrics, folder.curves)
    if wanted.report:
        from app import report

        try:
            report.write(folder.path)
        except UserError as error:
            keep(f"warning: no report: {error}")


def best(metrics: Path, names: Iterable[str] = MONITORED) -> dict[str, Any] | None:
    """`metric`, `value` and `step` of the line of metrics.csv with the lowest value; None where there is none.

    Of validations only those count that left out the fewest examples: without the longest a loss is another one.
    """
    if not metrics.exists():
        return None
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in names:
        lines = [(int(row.get(LEFT_OUT) or 0), float(row[name]), int(row["step"])) for row in rows if row.get(name)]
        if finite := [line for line in lines if math.isfinite(line[1])]:
            _, value, step = min(finite)
            return {"metric": name, "value": value, "step": step}
    return None
