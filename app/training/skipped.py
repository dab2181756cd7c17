"""What is done about optimizer steps that are skipped: they are counted, told of, kept for replay; many end the run."""

from dataclasses import dataclass
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from app.data.ledger import Ledger
from app.devices import memory_of
from app.errors import UserError
from app.training import replay_file, together
from app.training.console import say
from app.training.counts import Counts
from app.training.replay_file import Batches
from app.training.run_folder import RunFolder
from app.training.step import Skipped
from app.types import ProteinBatch

MOST_NAMED = 8
"""Examples in one line; the rest is counted."""


class AllSkipped(UserError):
    """Raised on all ranks alike, so that they can still ask each other for what they know."""


@dataclass
class Seen:
    """A batch of the step under way."""

    number: int  # in the epoch
    batch: ProteinBatch
    losses: Tensor | None  # [B]; None where memory did not suffice


@dataclass
class Told:
    """What one rank knows of a step that was skipped, and is to blame for."""

    rank: int
    examples: list[str]
    shapes: list[str]  # that did not fit
    batches: Batches


class SkippedSteps(Callback):
    """Follows what `OptimizerStep` does. A checkpoint has the number of skipped steps in a row, and the ledger of
    shapes that failed, which holds on devices of the same type and memory.

    Raises AllSkipped after `most` skipped steps in a row, before that step is saved.
    """

    state_key = "skipped"

    def __init__(self, folder: RunFolder, counts: Counts, ledger: Ledger, most: int):
        self.folder, self.counts, self.ledger, self.most = folder, counts, ledger, most
        self.in_row = 0
        self._seen: list[Seen] = []
        self._device: dict[str, Any] = {}
        self._restored: dict[str, Any] = {}
        self._announced: set[tuple[int, int]] = set()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._device = {"type": module.device.type, "memory": memory_of(module.device.type)}
        if self._restored.get("device") == self._device:
            self.ledger.note(self._restored["shapes"])
        self._announced = set(self.ledger.shapes)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: dict, batch: ProteinBatch, batch_idx: int
    ) -> None:
        self._seen.append(Seen(batch_idx, batch, outputs["losses"]["train_loss"] if "losses" in outputs else None))
        if not batch.share.ends:
            return
        self._announce()
        if "skipped" in outputs:
            self._skipped(trainer, module, outputs["skipped"], outputs["blame"])
        else:
            self.in_row = 0
        self._seen = []

    def _announce(self) -> None:
        """What all ranks have learnt together."""
        for size, length in sorted(self.ledger.shapes - self._announced):
            say(f"out of memory with {size} x {length} residues: batches no smaller are computed in parts from now on")
        self._announced = set(self.ledger.shapes)

    def _skipped(self, trainer: Trainer, module: LightningModule, why: Skipped, to_blame: bool) -> None:
        self.in_row += 1
        self.counts.update(**{"skipped_oom" if why is Skipped.MEMORY else "skipped_nonfinite": 1})
        told = [one for one in together.everyones(self._tell(trainer.global_rank) if to_blame else None) if one]
        kept = ""
        if why is Skipped.NOT_FINITE:
            batches = {one.rank: one.batches for one in told}
            path = replay_file.keep(self.folder, trainer, module, batches, self._device["type"], self.ledger)
            kept = f": python -m app replay {path}" if path else ""
        say(f"step {trainer.global_step}: skipped: {why}{_in_words(told, why)}{kept}")
        if self.in_row >= self.most:
            raise AllSkipped(
                f"step {trainer.global_step}: {self.in_row} optimizer steps in a row were skipped, the last one because"
                f" of {why.value}: {_cure(why)}"
            )

    def _tell(self, rank: int) -> Told:
        """Where no loss tells which example it was, it may be any."""
        finite = [None if seen.losses is None else seen.losses.isfinite().tolist() for seen in self._seen]
        suspects, all_of_them, shapes = [], [], []
        for seen, well in zip(self._seen, finite, strict=True):
            all_of_them += seen.batch.names
            if well is None:
                shapes.append(" x ".join(map(str, seen.batch.res_mask.shape)))
            else:
                suspects += [name for name, fine in zip(seen.batch.names, well, strict=True) if not fine]
        batches = [replay_file.plain(seen.number, seen.batch) for seen in self._seen]
        return Told(rank, suspects or all_of_them, shapes, batches)

    def state_dict(self) -> dict[str, Any]:
        return {"in_row": self.in_row, "device": self._device, "shapes": sorted(self.ledger.shapes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.in_row, self._restored = int(state["in_row"]), state


def _in_words(told: list[Told], why: Skipped) -> str:
    if why is Skipped.MEMORY:
        shapes = sorted({shape for one in told for shape in one.shapes})
        return f" with {', '.join(shapes)} residues" if shapes else " in the optimizer's step"
    names = [name for one in told for name in one.examples]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f", from {', '.join(names[:MOST_NAMED])}{more}"


def _cure(why: Skipped) -> str:
    if why is Skipped.MEMORY:
        return "lower data.loader.max_residues_squared, leave out the longest chains, or take a larger device"
    return (
        "python -m app replay FILE tells where it begins; go on from an earlier checkpoint with a smaller optimizer.lr"
        " or with trainer.gradient_clip=1"
    )
