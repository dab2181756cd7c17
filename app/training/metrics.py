"""What the log says: means over all examples since its last line, on all ranks, the losses also by time."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from app.types import ProteinBatch

BINS = 4
LOSSES = {
    "train_loss": None,
    "trans_loss": "structure_t",
    "rots_vf_loss": "structure_t",
    "aatypes_loss": "token_t",
    "auxiliary_loss": "structure_t",
}
"""Losses, and the time that each is sorted by: that of what it judges; their sum has none."""

VALUES = (*LOSSES, "length")


def _stratum(name: str, place: int) -> str:
    """trans_loss_t0.25-0.50: the examples with times in [0.25, 0.5); the last one holds t = 1 too."""
    return f"{name}_t{place / BINS:.2f}-{(place + 1) / BINS:.2f}"


COLUMNS = (
    "epoch",
    *LOSSES,
    *(_stratum(name, place) for name, when in LOSSES.items() if when for place in range(BINS)),
    "lr",
    "examples",
    "length",
    "residues_per_second",
    "waited_seconds",
)


class StratifiedMeans(Metric):
    """Means over examples, over all and by bins of time. The states `sums` and `counts` are [values, 1 + bins]."""

    def __init__(self):
        super().__init__()
        shape = (len(VALUES), 1 + BINS)
        self.add_state("sums", torch.zeros(shape), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(shape), dist_reduce_fx="sum")
        self.add_state("residues", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, outputs: dict[str, Any], batch: ProteinBatch) -> None:
        """outputs: of `CodesignModule.training_step`."""
        size, length = batch.res_mask.shape
        for row, name in enumerate(VALUES):
            values = outputs["losses"][name] if name in LOSSES else batch.res_mask.new_full((size,), length)
            self.sums[row, 0] += values.sum()
            self.counts[row, 0] += size
            if when := LOSSES.get(name):
                places = (outputs[when] * BINS).long().clamp(0, BINS - 1)
                member = (places[:, None] == torch.arange(BINS, device=places.device)).to(values.dtype)  # [B, bins]
                self.sums[row, 1:] += values @ member
                self.counts[row, 1:] += member.sum(0)
        self.residues += batch.res_mask.sum()

    def compute(self) -> dict[str, float]:
        """By name, less the bins without examples; also how many `examples` and `residues` there were."""
        means: dict[str, float] = {"examples": int(self.counts[0, 0]), "residues": float(self.residues)}
        for name, sums, counts in zip(VALUES, self.sums.tolist(), self.counts.tolist(), strict=True):
            names = [name, *(_stratum(name, place) for place in range(BINS))]
            means |= {key: total / n for key, total, n in zip(names, sums, counts, strict=True) if n}
        return means

    def totals(self) -> dict[str, Tensor]:
        """The sums over all ranks, on the CPU; to be called on all of them."""
        with self.sync_context():
            return {"sums": self.sums.clone().cpu(), "counts": self.counts.clone().cpu()}


class LogMetrics(Callback):
    """A line to every logger each `every` optimizer steps, and at the end of the run one over what is left.

    A checkpoint carries the sums since the last line, so a resumed run writes the lines that an uninterrupted one would
    have. `logged_step` is the step of that last line; lines after it, the one over what was left among them, are to be
    written anew. Residues are only counted for their rate, from the start of the process, as are the seconds for which
    this rank's steps waited for their batches.
    """

    state_key = "metrics"

    def __init__(self, every: int):
        self.every = every
        self.means = StratifiedMeans()
        self.logged_step: int | None = None
        self._step, self._epoch, self._since, self._waited = 0, 0, 0.0, 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.means.to(module.device)
        if self.logged_step is None:
            self.logged_step = trainer.global_step
        self._step, self._epoch, self._since = trainer.global_step, trainer.current_epoch, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: dict, batch: ProteinBatch, batch_idx: int
    ) -> None:
        self.means.update(outputs, batch)
        if trainer.global_step != self._step:  # else gradients are being accumulated
            self._step, self._epoch = trainer.global_step, trainer.current_epoch
            if self._step % self.every == 0:
                self._write(trainer)
                self.logged_step, self._since, self._waited = self._step, time.perf_counter(), _waited(trainer)
                self.means.reset()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self._step != self.logged_step:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        row = self.means.compute()
        row["residues_per_second"] = row.pop("residues") / (time.perf_counter() - self._since)
        row["waited_seconds"] = _waited(trainer) - self._waited
        row |= {"epoch": self._epoch, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        for logger in trainer.loggers:
            logger.log_metrics({name: row[name] for name in COLUMNS if name in row}, step=self._step)

    def state_dict(self) -> dict[str, Any]:
        return {"logged_step": self.logged_step, **self.means.totals()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.logged_step = int(state["logged_step"])
        if self.means.sums.shape == state["sums"].shape and self._speaks_for_all():
            self.means.sums, self.means.counts = state["sums"].clone(), state["counts"].clone()

    @staticmethod
    def _speaks_for_all() -> bool:
        """The sums stored are those of all ranks together: one of them takes them over."""
        return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _waited(trainer: Trainer) -> float:
    return getattr(trainer.datamodule, "waited", 0.0)
