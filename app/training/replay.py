"""A step that was kept, run again: every loss, and where numbers stop being finite."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

import torch

from app.devices import MPS
from app.errors import UserError
from app.ops import select
from app.ops.settings import KernelSettings
from app.training.kernel_environment import dtype_of
from app.training.module import CodesignModule
from app.training.passes import Place, passes
from app.training.recorded import RecordedPasses
from app.training.replay_file import Kept
from app.training.watch import FirstNotFinite, watched
from app.types import ProteinBatch


@dataclass(frozen=True)
class Row:
    """An example as it came out."""

    place: Place
    name: str
    length: int  # residues
    losses: dict[str, float]


@dataclass(frozen=True)
class Replayed:
    rows: list[Row]
    first: FirstNotFinite
    finite: bool  # all losses, and the norm of each rank's gradient
    largest: str | None = None  # of the first gradient whose norm is not: the parameter that has most of it

    def verdict(self) -> str:
        """In one sentence."""
        if self.first.forward is not None:
            return f"the first output that is not finite is that of {self.first.forward}"
        if self.first.backward is not None:
            return f"all outputs are finite; the first gradient that is not is that of {self.first.backward}"
        if self.largest is not None and all(isfinite(loss) for row in self.rows for loss in row.losses.values()):
            return f"all numbers are finite, but too large for the gradient's norm, most of all that of {self.largest}"
        if not self.finite:
            return "the outputs and gradients of all modules are finite: what is not is the loss"
        return "all losses and gradients are finite here: it could not be reproduced"


def replay(kept: Kept, device: torch.device) -> Replayed:
    """The step's forward and backward passes, with the noise and, on a device of the same type, the dropout and the
    kernels that they had; without a compiler.

    Raises UserError where memory does not suffice, or kernels of the run are not there.
    """
    module = kept.module.to(device).train()
    kernels = kept.kernels if device.type == kept.device else KernelSettings()
    select.require(kernels, device, dtype_of(module.recipe.trainer.precision), select.used_by(module), True)
    rows, finite, largest = [], True, None
    with select.using(kernels), watched(module.model) as first:
        for _, batches in groupby(kept.batches, lambda each: each[0].rank):
            for place, batch in batches:
                rows += _one(module, batch.to(device), place, kept)
            gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
            norms = {name: gradient.norm() for name, gradient in gradients.items()}
            if not bool(torch.stack(list(norms.values())).norm().isfinite()):
                finite = False
                largest = largest or max(norms, key=lambda name: float(norms[name]))
            module.zero_grad()
    finite &= bool(torch.tensor([list(row.losses.values()) for row in rows]).isfinite().all())
    return Replayed(rows, first, finite, largest)


def _one(module: CodesignModule, batch: ProteinBatch, place: Place, kept: Kept) -> Iterator[Row]:
    dtype = dtype_of(module.recipe.trainer.precision)
    launched = None
    if kept.cuda_graph:  # dropout depends on the padding
        launched = RecordedPasses(module.losses_of_part, module.parameters(), records=False)
    half = dtype != torch.float32 and batch.device.type != MPS
    with torch.autocast(batch.device.type, dtype if half else None, enabled=half, cache_enabled=False):
        out = passes(module, batch, place, kept.ledger, recorded=launched)
    if out is None:
        raise UserError(f"out of memory on {batch.device.type}: give device=cpu, or another with more memory")
    for index, name in enumerate(batch.names):
        losses = {loss: float(values[index]) for loss, values in out["losses"].items()}
        yield Row(place, name, int(batch.res_mask[index].sum()), losses)
