"""From a recipe's data section to batches."""

import logging
import sys
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
import yaml

from app.data import datamodule
from app.data.datamodule import KINDS, ProteinDataModule
from app.data.examples import Examples
from app.data.loader import ResumableLoader
from app.data.loader_settings import LoaderSettings
from app.data.multiflow_settings import MultiflowSettings
from app.data.part import Part
from app.errors import UserError
from tests.data.made_multiflow import row, write

ROOT = Path(__file__).parents[2]


class Brittle:
    """Examples of which some are broken."""

    lengths = (50, 60, 61, 70, 70)
    names = ("a", "b", "c", "d", "e")

    def __init__(self, broken=()):
        self.broken = broken

    def draw(self, epoch, seed):
        return range(5)

    def __getitem__(self, index):
        if index in self.broken:
            raise UserError(f"{self.names[index]}.pkl: broken")
        length = self.lengths[index]
        masks = dict.fromkeys(("res_mask", "diffuse_mask", "plddt_mask"), torch.ones(length))
        indices = dict.fromkeys(("chain_idx", "res_idx", "aatypes_1"), torch.ones(length, dtype=torch.int64))
        frames = {"trans_1": torch.zeros(length, 3), "rotmats_1": torch.eye(3).expand(length, 3, 3)}
        return {"name": self.names[index], **masks, **indices, **frames}

    def augment(self, features, random):
        return {**features, "trans_1": features["trans_1"] + random.integers(1000)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "data.kind: None is unknown; choose one of demo, structures, multiflow"),
        ({"kind": "pdb"}, "data.kind: 'pdb' is unknown"),
        ({"kind": "multiflow"}, "data.path"),
        ({"kind": "multiflow", "path": "x", "paht": 1}, "data.paht"),
        ({"kind": "multiflow", "path": "x", "filter": {"num_chains": "many"}}, "data.filter.num_chains"),
        ({"kind": "multiflow", "path": "nowhere"}, "nowhere: holds no metadata.csv"),
        ({"kind": "demo", "loader": {"bucket": 0}}, "data.loader.bucket"),
        ({"kind": "demo", "loader": {"batch": 1}}, "data.loader.batch"),
    ],
)
def test_wrong_settings_are_named(data, message):
    with pytest.raises(UserError) as error:
        ProteinDataModule(data).setup()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_recipe_mirrors_the_settings():
    recipe = yaml.safe_load((ROOT / "recipes/data/multiflow.yaml").read_text())
    assert recipe.pop("kind") in KINDS and recipe.pop("path") == "???"
    loader = recipe.pop("loader")
    assert set(LoaderSettings(**loader).model_dump()) == set(loader)
    assert recipe.pop("validation") == {"fraction": "auto", "hold_out": [], "seed": 0}
    settings = MultiflowSettings(path="x", **recipe)
    assert settings == MultiflowSettings(path="x")
    assert set(settings.model_dump()) - {"path", "validation"} == set(recipe)
    assert not settings.validation.is_on(1000), "checkpoints of before there was a choice hold nothing out"
    assert set(recipe["filter"]) == set(settings.filter.model_dump())


def test_multiflow_through_lightning(tmp_path):
    """Two epochs of a small set in Multiflow's layout, one file of it broken, read by workers."""
    rows = [row(f"1aa{letter}", modeled_seq_len=60 + 10 * (number % 2)) for number, letter in enumerate("abcdefgh")]
    folder = write(tmp_path, rows, {"1aac": b"broken"})

    class Watch(lightning.LightningModule):
        seen = ()

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, _):
            assert batch.trans_1.isfinite().all() and batch.res_mask.all()
            self.seen += tuple(batch.names)
            return self.layer(batch.trans_1.mean().reshape(1, 1)).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    module = Watch()
    data = ProteinDataModule({"kind": "multiflow", "path": str(folder), "loader": {"num_workers": 1}})
    lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, data)  # fmt: skip
    assert "1aac" not in module.seen and len(module.seen) == 16
    assert set(module.seen) == {one["pdb_name"] for one in rows} - {"1aac"}


def test_random_variants_depend_on_seed_epoch_and_example():
    def variant(seed, epoch, index):
        return Examples(Brittle(), seed)[epoch, index]["trans_1"][0, 0].item()

    assert variant(0, 1, 2) == variant(0, 1, 2)
    assert len({variant(0, 1, 2), variant(1, 1, 2), variant(0, 2, 2), variant(0, 1, 3)}) == 4


def test_workers_read_what_the_training_process_would():
    def names(workers):
        settings = LoaderSettings(num_workers=workers, max_batch_size=2)
        loader = ResumableLoader(Brittle(), settings, position=lambda: (0, 0))
        state = torch.get_rng_state()
        batches = [(batch.names, batch.trans_1) for _ in range(2) for batch in loader]
        assert torch.equal(state, torch.get_rng_state())  # loading draws nothing from the global generator
        loader.close()
        return batches

    for (names_0, trans_0), (names_2, trans_2) in zip(names(0), names(2), strict=True):
        assert names_0 == names_2 and torch.equal(trans_0, trans_2)


@pytest.mark.slow
def test_workers_may_be_spawned():
    """As on Mac: the data set reaches them by pickling."""
    settings = LoaderSettings(num_workers=1, max_batch_size=2)
    loader = ResumableLoader(Brittle(), settings, position=lambda: (0, 0))
    loader._loader.multiprocessing_context = "spawn"
    assert sorted(name for batch in loader for name in batch.names) == ["a", "b", "c", "d", "e"]
    loader.close()


def test_data_set_is_built_once(monkeypatch):
    built = []
    monkeypatch.setitem(datamodule.KINDS, "brittle", lambda values: built.append(values) or Brittle())
    data = ProteinDataModule({"kind": "brittle", "flavour": "salt", "loader": {}})
    data.prepare_data()
    data.setup("fit")
    assert data.batches_per_epoch() == 4 and data.batches_per_epoch(world_size=3) == 2
    assert built == [{"flavour": "salt"}]


class Halves(Brittle):
    """The first three are trained on, the last two held out; one of each is broken, and a file was not readable."""

    unreadable = (("empty", "empty.cif: no atoms"),)

    def __init__(self, _values):
        super().__init__(broken={1, 4})

    def split(self):
        return Part(self, np.arange(3)), Part(self, np.arange(3, 5))


class Both(lightning.LightningModule):
    """Writes down what it validates on, and at the end what the data module dropped."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.weight = folder, torch.nn.Parameter(torch.ones(()))

    def on_fit_start(self):
        self.log_file = logging.FileHandler(self.folder / f"log-{self.global_rank}")
        logging.getLogger("app.data.examples").addHandler(self.log_file)

    def training_step(self, batch, _):
        assert set(batch.names) <= {"a", "c"}, "what is held out takes nobody's place"
        return self.weight * batch.trans_1.mean()

    def validation_step(self, batch, _):
        with (self.folder / f"validated-{self.global_rank}").open("a") as file:
            file.write(f"{','.join(batch.names)} {batch.trans_1.sum():.0f}\n")

    def on_train_end(self):
        dropped = self.trainer.datamodule.dropped_examples()
        (self.folder / f"dropped-{self.global_rank}").write_text(repr(dict(sorted(dropped.items()))))
        logging.getLogger("app.data.examples").removeHandler(self.log_file)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("ranks", [1, 2])
def test_training_and_validation_count_what_they_drop_on_all_ranks(tmp_path, monkeypatch, ranks):
    if ranks > 1 and not (torch.distributed.is_available() and sys.platform == "linux"):
        pytest.skip("forks two processes")
    monkeypatch.setitem(datamodule.KINDS, "halves", Halves)
    data = ProteinDataModule({"kind": "halves", "loader": {"max_batch_size": 1, "num_workers": 1}})
    lightning.Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp_fork" if ranks > 1 else "auto", max_epochs=3, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(Both(tmp_path), data)  # fmt: skip
    told = (tmp_path / "log-0").read_text().splitlines()
    assert sorted(told) == ["dropped b: b.pkl: broken", "dropped e: e.pkl: broken"], "each once, by the first rank"
    for rank in range(ranks):
        expected = {"b": "b.pkl: broken", "e": "e.pkl: broken", "empty": "empty.cif: no atoms"}
        assert (tmp_path / f"dropped-{rank}").read_text() == repr(expected)
        validated = (tmp_path / f"validated-{rank}").read_text().splitlines()
        per_epoch = 2 // ranks
        epochs = [validated[-per_epoch * epoch :][:per_epoch] for epoch in (3, 2, 1)]
        assert epochs[0] == epochs[1] == epochs[2] and {line.split()[0] for line in validated} == {"d"}
