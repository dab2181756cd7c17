"""Lightning's view of the data: from the recipe's `data` section to training batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from lightning import LightningDataModule
from pydantic import BaseModel, ConfigDict
from torch import distributed

from app.config.validate import parse
from app.data.batching import LengthBatchSampler
from app.data.examples import Dropped, Examples, ProteinDataset
from app.data.loader import ResumableLoader
from app.data.loader_settings import LoaderSettings
from app.data.part import Part, some_of
from app.data.place import go_on_between_steps, place_of
from app.data.seen import Seen
from app.data.steps import EACH_BATCH, StepSettings
from app.errors import UserError
from app.types import ProteinBatch


class DemoSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str = "train"


def _demo(values: dict) -> ProteinDataset:
    from app.data.demo_dataset import DemoDataset

    return DemoDataset(parse(DemoSettings, values, "data").split)


def _structures(values: dict) -> ProteinDataset:
    from app.data.structures import StructureDataset
    from app.data.structures_settings import StructuresSettings

    return StructureDataset(parse(StructuresSettings, values, "data"))


def _multiflow(values: dict) -> ProteinDataset:
    from app.data.multiflow import MultiflowDataset
    from app.data.multiflow_settings import MultiflowSettings

    return MultiflowDataset(parse(MultiflowSettings, values, "data"))


KINDS: dict[str, Callable[[dict], ProteinDataset]] = {
    "demo": _demo,
    "structures": _structures,
    "multiflow": _multiflow,
}
"""`data.kind` -> how its data set is built from the other keys. To add a kind: a function above, a line here."""


def build_dataset(data: Mapping[str, Any]) -> ProteinDataset:
    """The data set that a recipe's `data` section describes. Raises UserError naming the key that is wrong."""
    values = {key: value for key, value in data.items() if key not in ("kind", "loader")}
    if data.get("kind") not in KINDS:
        raise UserError(f"data.kind: {data.get('kind')!r} is unknown; choose one of {', '.join(KINDS)}")
    return KINDS[data["kind"]](values)


class ProteinDataModule(LightningDataModule):
    """Batches of the data that a recipe's `data` section describes.

    Those for training go on exactly where a run stopped; those of the clusters held out for validation, where there are
    any, are the same each time.

    data: `kind`, `loader` (LoaderSettings) and the keys of that kind. steps: what makes an optimizer step. validated:
    how many of the examples held out are validated on, at most; None: all. Raises UserError naming the key that is
    wrong.
    """

    def __init__(self, data: Mapping[str, Any], steps: StepSettings = EACH_BATCH, validated: int | None = None):
        super().__init__()
        self.data = dict(data)
        self.loader_settings = parse(LoaderSettings, self.data.get("loader") or {}, "data.loader")
        self.steps, self.validated = steps, validated
        self.dataset: ProteinDataset | None = None  # to train on
        self.held_out: ProteinDataset | None = None
        self._unreadable: dict[str, str] = {}
        self._dropped = Dropped()
        self._training: ResumableLoader | None = None
        self._validation: ResumableLoader | None = None
        self._seen: Seen | None = None  # by the run that goes on
        self._sides: dict[str, Any] = {}  # what both have seen, for the checkpoint
        self._batches_before: int | None = None  # an epoch, in the run that goes on

    def prepare_data(self) -> None:
        self.setup()  # called on one process a node, before `setup` on all: caches are built once

    def setup(self, stage: str | None = None) -> None:
        if self.dataset is None:
            whole = build_dataset(self.data)
            seen = () if self._seen is None else (self._seen,)
            self.dataset, self.held_out = whole.split(*seen) if hasattr(whole, "split") else (whole, None)
            held_out = () if self.held_out is None else self.held_out.names
            self._sides = (self._seen or Seen((), ())).and_then(self.dataset.names, held_out).state()
            self._seen = None
            self._unreadable = dict(getattr(whole, "unreadable", ()))
            if self.held_out is not None and self.validated is not None:
                drawn = np.asarray(self.held_out.draw(0, self.loader_settings.seed))
                names = [self.held_out.names[index] for index in drawn.tolist()]
                self.held_out = Part(self.held_out, np.sort(drawn[some_of(names, self.validated)]))

    def batches_per_epoch(self, world_size: int = 1) -> int:
        """Training batches of each epoch on each of `world_size` devices, known before there is a trainer."""
        self.setup()
        return len(LengthBatchSampler(self.dataset.lengths, self.dataset.draw, self.loader_settings, 0, world_size))

    def steps_an_epoch(self) -> int:
        """Optimizer steps of an epoch, once there are training batches."""
        return self._training.batches.steps_an_epoch()

    def share_of_rank(self) -> dict[str, Any]:
        """What has to be the same on all ranks, once there are training batches."""
        return {
            "examples": len(self.dataset.names),
            "batches": len(self._training),
            "fingerprint": self._training.fingerprint(),
        }

    def train_dataloader(self) -> ResumableLoader:
        loop = self.trainer.fit_loop
        self._training = self._loader(self.dataset, lambda: place_of(loop), self.steps)
        if loop.restarting:
            go_on_between_steps(loop, self._training.batches, self._batches_before)
        return self._training

    def val_dataloader(self) -> ResumableLoader | list:
        """Empty where nothing is held out."""
        if self.held_out is None:
            return []
        self._validation = self._loader(self.held_out, lambda: (0, 0))
        return self._validation

    def read_held_out(self, indices: Sequence[int]) -> ProteinBatch:
        """A batch of these examples of `held_out`; one that cannot be used gives way to another."""
        read = Examples(self.held_out, self.loader_settings.seed).__getitems__([(0, index) for index in indices])
        self._dropped.note(read.dropped)
        return read.batch

    @property
    def waited(self) -> float:
        """Seconds that this process's training steps waited for their batches."""
        return self._training.waited if self._training is not None else 0.0

    def dropped_examples(self) -> dict[str, str]:
        """(name -> reason) of the files and examples that could not be used so far, in training and in validation, on
        all ranks; to be called on all of them. What only others met is logged here as well."""
        if distributed.is_available() and distributed.is_initialized():
            everyones: list[dict[str, str]] = [{}] * distributed.get_world_size()
            distributed.all_gather_object(everyones, dict(self._dropped))
            for one in everyones:
                self._dropped.note(one)
        return {**self._unreadable, **self._dropped}

    def _loader(
        self, dataset: ProteinDataset, position: Callable[[], tuple[int, int]], steps: StepSettings = EACH_BATCH
    ) -> ResumableLoader:
        trainer = self.trainer
        rank, world_size = trainer.global_rank, trainer.world_size
        return ResumableLoader(dataset, self.loader_settings, position, rank, world_size, self._dropped, steps)

    def teardown(self, stage: str | None = None) -> None:
        for loader in (self._training, self._validation):
            if loader is not None:
                loader.close()

    # Lightning stores this in the checkpoint and hands it back before it asks for loaders. For what was held out to
    # stay so, it has to be handed over before `setup`.

    def state_dict(self) -> dict[str, Any]:
        return self._sides if self._training is None else {"batches": len(self._training), **self._sides}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches_before = state.get("batches")
        if self.dataset is None:
            self._seen = Seen.of_state(state)
