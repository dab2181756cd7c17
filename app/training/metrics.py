"""What the log says: means over all examples since its last line, on all ranks, the losses also by time."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torchmetrics import MeanMetric, Metric

from app.training.kernel_environment import dtype_of
from app.training.rank_states import of_all_ranks, restore
from app.training.run_end import is_last_step
from app.training.throughput import MEASURED, Throughput, peak_flops
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
    "gradient_norm",
    "examples",
    "length",
    *MEASURED,
)


class StratifiedMeans(Metric):
    """Means over examples, over all and by bins of time. The states `sums` and `counts` are [values, 1 + bins]."""

    def __init__(self):
        super().__init__()
        shape = (len(VALUES), 1 + BINS)
        self.add_state("sums", torch.zeros(shape), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(shape), dist_reduce_fx="sum")

    def update(self, outputs: dict[str, Any], batch: ProteinBatch) -> None:
        """outputs: of `CodesignModule.training_step`. Examples whose losses are not finite do not count."""
        if "losses" not in outputs:  # memory did not suffice
            return
        size, length = batch.res_mask.shape
        finite = torch.stack(list(outputs["losses"].values())).isfinite().all(0)  # [B]
        for row, name in enumerate(VALUES):
            values = outputs["losses"][name] if name in LOSSES else batch.res_mask.new_full((size,), length)
            values = values.where(finite, 0.0)
            self.sums[row, 0] += values.sum()
            self.counts[row, 0] += finite.sum()
            if when := LOSSES.get(name):
                places = (outputs[when] * BINS).long().clamp(0, BINS - 1)
                member = (places[:, None] == torch.arange(BINS, device=places.device)) & finite[:, None]  # [B, bins]
                member = member.to(values.dtype)
                self.sums[row, 1:] += values @ member
                self.counts[row, 1:] += member.sum(0)

    def compute(self) -> dict[str, float]:
        """By name, less the bins without examples; also how many `examples` there were."""
        means: dict[str, float] = {"examples": int(self.counts[0, 0])}
        for name, sums, counts in zip(VALUES, self.sums.tolist(), self.counts.tolist(), strict=True):
            names = [name, *(_stratum(name, place) for place in range(BINS))]
            means |= {key: total / n for key, total, n in zip(names, sums, counts, strict=True) if n}
        return means


class LogMetrics(Callback):
    """A line to every logger each `every` optimizer steps, and at the last step of the run one over what is left, which
    is there before the last checkpoint: a run killed between the two has lost nothing.

    A checkpoint carries the sums since the last line, so a resumed run writes the lines that an uninterrupted one would
    have. `logged_step` is the step of that last line; lines after it, the one over what was left among them, are to be
    written anew. What is measured (`MEASURED`) begins anew with the process.

    flops: of training on a batch of that size and length; None where nobody counts them.
    """

    state_key = "metrics"

    def __init__(self, every: int, flops: Callable[[int, int], float] | None = None):
        self.every, self.flops = every, flops
        self.means, self.throughput = StratifiedMeans(), Throughput()
        self.norms = MeanMetric(nan_strategy="disable")  # of gradients, before they are clipped
        self.logged_step: int | None = None
        self._step, self._epoch, self._lr, self._waited, self._written = 0, 0, 0.0, 0.0, -1

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        for metric in (self.means, self.norms, self.throughput):
            metric.to(module.device)
        peak = peak_flops(module.device, dtype_of(str(trainer.precision))) if self.flops else None
        self.throughput.peak_flops = peak and peak * trainer.world_size
        self.throughput.reset()
        if self.logged_step is None:
            self.logged_step = trainer.global_step
        self._step, self._epoch, self._waited = trainer.global_step, trainer.current_epoch, _waited(trainer)
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: dict, batch: ProteinBatch, batch_idx: int
    ) -> None:
        self.means.update(outputs, batch)
        self._lr = outputs.get("lr", self._lr)
        if "gradient_norm" in outputs:
            self.norms.update(outputs["gradient_norm"])
        flops = self.flops(*batch.res_mask.shape) if self.throughput.peak_flops else 0.0
        waited = _waited(trainer)
        self.throughput.update(batch, waited - self._waited, flops)
        self._waited = waited
        if trainer.global_step != self._step:  # else gradients are being accumulated
            self._step, self._epoch = trainer.global_step, trainer.current_epoch
            if self._step % self.every == 0:
                self._write(trainer)
                self.logged_step = self._step
                for metric in (self.means, self.norms, self.throughput):
                    metric.reset()
            elif is_last_step(trainer):
                self._write(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self._step not in (self.logged_step, self._written):  # something stopped the run after this had its turn
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        self._written = self._step
        row = self.means.compute() | self.throughput.compute()
        row |= {"epoch": self._epoch, "lr": self._lr}
        if self.norms.weight > 0:
            row["gradient_norm"] = float(self.norms.compute())
        for logger in trainer.loggers:
            logger.log_metrics({name: row[name] for name in COLUMNS if name in row}, step=self._step)

    def state_dict(self) -> dict[str, Any]:
        norms = of_all_ranks(self.norms)
        return {"logged_step": self.logged_step, "gradient_norm": norms, **of_all_ranks(self.means)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.logged_step = int(state["logged_step"])
        restore(self.means, {name: state[name] for name in self.means.metric_state if name in state})
        restore(self.norms, state.get("gradient_norm", {}))


def _waited(trainer: Trainer) -> float:
    return getattr(trainer.datamodule, "waited", 0.0)
