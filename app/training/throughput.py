"""What the hardware makes of a run: residues per second, waiting for data, memory, and how much of its peak is used."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torchmetrics import Metric

from app.devices import NVIDIA, peak_memory, restart_peak_memory
from app.types import ProteinBatch

MEASURED = ("residues_per_second", "seconds", "waiting_seconds", "memory_mb", "mfu")
"""Columns of the log that no two runs have in common."""


class Throughput(Metric):
    """`MEASURED` since `reset`. Rates are those of all ranks together; of waiting and memory, the worst rank's.

    peak_flops: FLOPs a second of all devices together, where that is known; only then there is an `mfu`.
    """

    def __init__(self, peak_flops: float | None = None):
        super().__init__()
        self.peak_flops = peak_flops
        for name, reduce in (("residues", "sum"), ("flops", "sum"), ("waiting", "max"), ("memory", "max")):
            self.add_state(name, torch.zeros(()), dist_reduce_fx=reduce)
        self._since = time.perf_counter()

    def update(self, batch: ProteinBatch, waited: float, flops: float = 0.0) -> None:
        """waited: seconds, for this batch. flops: those that the model takes for it, trained on."""
        self.residues += batch.res_mask.sum()
        self.flops += flops
        self.waiting += waited
        self.memory.clamp_(min=peak_memory(self.memory.device) / 2**20)

    def compute(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._since
        row = {
            "residues_per_second": float(self.residues) / seconds,
            "seconds": seconds,
            "waiting_seconds": float(self.waiting),
            "memory_mb": float(self.memory),
        }
        return row | ({"mfu": float(self.flops) / seconds / self.peak_flops} if self.peak_flops else {})

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What takes place inside is none of training's time."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def reset(self) -> None:
        super().reset()
        restart_peak_memory(self.residues.device)
        self._since = time.perf_counter()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOPs a second that an NVIDIA GPU is sold with for products of this type; None for others and unknown ones."""
    return get_available_flops(device, dtype) if device.type == NVIDIA else None
