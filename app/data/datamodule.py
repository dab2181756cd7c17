"""Lightning's view of the data: from the recipe's `data` section to training batches."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning import LightningDataModule
from pydantic import BaseModel, ConfigDict

from app.config.validate import parse
from app.data.batching import LengthBatchSampler
from app.data.loader import ProteinDataset, ResumableLoader
from app.data.loader_settings import LoaderSettings
from app.errors import UserError


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
    """Training batches of the data that a recipe's `data` section describes, continued exactly where a run stopped.

    data: `kind`, `loader` (LoaderSettings) and the keys of that kind. Raises UserError naming the key that is wrong.
    """

    def __init__(self, data: Mapping[str, Any]):
        super().__init__()
        self.data = dict(data)
        self.loader_settings = parse(LoaderSettings, self.data.get("loader") or {}, "data.loader")
        self.dataset: ProteinDataset | None = None
        self._loader: ResumableLoader | None = None

    def prepare_data(self) -> None:
        self.setup()  # called on one process a node, before `setup` on all: caches are built once

    def setup(self, stage: str | None = None) -> None:
        if self.dataset is None:
            self.dataset = build_dataset(self.data)

    def batches_per_epoch(self, world_size: int = 1) -> int:
        """Training batches of each epoch on each of `world_size` devices, known before there is a trainer.

        Lightning resumes exactly where it counts in steps, but not always where only `max_epochs` is set: a checkpoint
        of a run that was itself resumed at the end of an epoch may be taken for finished. So give it `max_steps`.
        """
        self.setup()
        return len(LengthBatchSampler(self.dataset.lengths, self.dataset.draw, self.loader_settings, 0, world_size))

    def train_dataloader(self) -> ResumableLoader:
        self._loader = ResumableLoader(
            self.dataset, self.loader_settings, self._position, self.trainer.global_rank, self.trainer.world_size
        )
        return self._loader

    def _position(self) -> tuple[int, int]:
        """(batches that went into the weights since the run began, batches of the present epoch)."""
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return progress.total.processed, progress.current.ready

    def teardown(self, stage: str | None = None) -> None:
        if self._loader is not None:
            self._loader.close()
