"""Steps that are kept to be run again: a checkpoint of the weights as they were, and the batches of the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning import LightningModule, Trainer
from torch import Tensor

from app.config.validate import parse
from app.data.ledger import Ledger
from app.errors import UserError
from app.ops.settings import KernelSettings
from app.training.checkpoint import open_checkpoint
from app.training.checkpoint_io import WholeFiles
from app.training.console import say
from app.training.module import CodesignModule
from app.training.passes import Place
from app.training.run_folder import RunFolder
from app.types import ProteinBatch, Share

SECTION = "replay"
KEPT = 3
"""Files of a run, the newest."""

Batches = list[dict[str, Any]]
"""Of one rank, in order, as `plain` gives them."""


def plain(number: int, batch: ProteinBatch) -> dict[str, Any]:
    """A batch as containers and CPU tensors. number: in its epoch."""
    kept = {f.name: getattr(batch.to("cpu"), f.name) for f in dataclasses.fields(batch)}
    return kept | {"share": dataclasses.asdict(batch.share), "number": number}


def of_plain(kept: Mapping[str, Any]) -> tuple[int, ProteinBatch]:
    """What `plain` was given. Raises KeyError, TypeError where `kept` is something else."""
    values = {f.name: kept[f.name] for f in dataclasses.fields(ProteinBatch)}
    lengths = {value.shape[:2] for value in values.values() if isinstance(value, Tensor)}
    if len(lengths) != 1 or len(values["names"]) != next(iter(lengths))[0]:
        raise TypeError("its tensors do not belong together")
    return int(kept["number"]), ProteinBatch(**values | {"share": Share(**kept["share"])})


def keep(
    folder: RunFolder,
    trainer: Trainer,
    module: LightningModule,
    of_ranks: Mapping[int, Batches],
    device: str,
    ledger: Ledger,
) -> Path | None:
    """Write the step that was skipped last; None, and a word, where that cannot be done. To be called on all ranks; the
    first one writes. of_ranks: batches of those that are to blame, by rank."""
    weights = trainer.strategy.lightning_module_state_dict()  # gathered, where they are in shards
    path = folder.replay_of(trainer.global_step)
    if not trainer.is_global_zero:
        return path
    checkpoint = {
        "pytorch-lightning_version": lightning.__version__,
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "state_dict": weights,
        SECTION: {"device": device, "ledger": sorted(ledger.shapes), "ranks": dict(of_ranks)},
    }
    module.on_save_checkpoint(checkpoint)
    files = WholeFiles()
    files.save_checkpoint(checkpoint, path)
    if files.failed:  # the run does without
        say(f"warning: {files.failed}")
        return None
    for old in [kept for kept in folder.replays() if kept != path][: 1 - KEPT]:
        old.unlink(missing_ok=True)
    return path


@dataclass(frozen=True)
class Kept:
    """A step that was kept."""

    module: CodesignModule  # with the weights as they were, on the CPU
    kernels: KernelSettings
    device: str  # the type of that which it ran on
    step: int
    ledger: Ledger
    cuda_graph: bool  # whether its batches were padded, as those are whose passes are recorded
    batches: list[tuple[Place, ProteinBatch]]  # of those ranks that are to blame, one after the other


def read(path: str | Path, language: Mapping[str, Any] | None = None) -> Kept:
    """Raises UserError for a file that has no step, or whose step cannot be read, and as `open_checkpoint` does."""
    opened = open_checkpoint(path, language)
    if SECTION not in opened.state:
        raise UserError(f"{path}: a checkpoint, but no step to replay: give a file of the folder replay of a run")
    try:
        section, batches = opened.state[SECTION], []
        for rank, kept in section["ranks"].items():
            for number, batch in map(of_plain, kept):
                batches.append((Place(opened.epoch, number, int(rank)), batch))
        ledger, device = Ledger(), str(section["device"])
        ledger.note(section["ledger"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: damaged, its step cannot be read: copy it again or take another") from None
    kernels = parse(KernelSettings, opened.recipe["kernels"], "kernels")
    cuda_graph = opened.recipe.get("cuda_graph") is True
    return Kept(opened.module, kernels, device, opened.step, ledger, cuda_graph, batches)
