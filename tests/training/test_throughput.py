"""What is measured of a run, and the FLOPs that its MFU rests on."""

import csv
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from app.data.structures import StructureDataset
from app.estimate.needs import noisy_batch as noisy_batch_of_shape
from app.losses.codesign import losses
from app.model.codesign import CodesignModel
from app.ops import select
from app.ops.settings import OPERATIONS, KernelSettings
from app.training.flops import TrainFlops
from app.training.recipe import Recipe
from app.training.run import train
from app.training.throughput import MEASURED, Throughput
from tests.estimate.measured import recipe_of
from tests.factories import protein_batch
from tests.training.runs import arguments


def test_rates_are_of_the_residues_that_are_present():
    throughput = Throughput(peak_flops=1e3)
    throughput.reset()
    throughput.update(protein_batch(3, 10, missing=4), waited=0.25, flops=50.0)
    throughput.update(protein_batch(2, 20), waited=0.5, flops=30.0)
    time.sleep(0.01)
    row = throughput.compute()
    assert set(row) == set(MEASURED)
    assert row["residues_per_second"] * row["seconds"] == pytest.approx(30 - 4 + 40)
    assert row["mfu"] * row["seconds"] == pytest.approx(80 / 1e3)
    assert row["waiting_seconds"] == pytest.approx(0.75) and row["seconds"] >= 0.01
    assert 50 < row["memory_mb"] < 2**20  # a process with torch in it
    throughput.reset()
    throughput.update(protein_batch(2, 20), waited=0.0)
    assert throughput.compute()["waiting_seconds"] == 0


def test_a_pause_is_none_of_trainings_time():
    throughput = Throughput()
    throughput.reset()
    began = time.perf_counter()
    with throughput.paused():
        time.sleep(0.3)
    assert throughput.compute()["seconds"] < time.perf_counter() - began - 0.29


def test_there_is_no_mfu_where_the_peak_is_unknown():
    throughput = Throughput()
    throughput.update(protein_batch(2, 20), waited=0.0)
    assert "mfu" not in throughput.compute()


def logged(out) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_log_tells_of_slow_data(tmp_path, monkeypatch):
    """All of the log's columns but MFU, which is for GPUs; batches are slow in the second of two runs."""
    waited = {}
    for name, pause in (("fast", 0.0), ("slow", 0.3)):
        read = StructureDataset.__getitem__
        with monkeypatch.context() as patch:
            patch.setattr(StructureDataset, "__getitem__", lambda *args: (time.sleep(pause), read(*args))[1])  # noqa: B023
            more = ("trainer.max_steps=4", "trainer.log_every=4", "data.loader.num_workers=0")
            train(arguments(tmp_path, *more, f"out={tmp_path / name}"))
        (row,) = logged(tmp_path / name)
        waited[name] = float(row["waiting_seconds"])
        assert waited[name] < float(row["seconds"]) and not row["mfu"]
        assert all(float(row[column]) > 0 for column in MEASURED if column != "mfu")
    assert waited["slow"] > waited["fast"] + 4 * 0.3


def test_mfu_is_logged_where_the_device_has_a_known_peak(tmp_path, monkeypatch):
    monkeypatch.setattr("app.training.metrics.peak_flops", lambda device, dtype: 1e12)
    train(arguments(tmp_path, "trainer.max_steps=2", "trainer.log_every=2", f"out={tmp_path / 'out'}"))
    (row,) = logged(tmp_path / "out")
    assert 0 < float(row["mfu"]) < 1


def counted(recipe: Recipe, size: int, length: int, train: bool = False) -> int:
    """By torch's own counter, the reference's operations on tensors without numbers."""
    reference = KernelSettings(**dict.fromkeys(OPERATIONS, "reference"))
    with torch.device("meta"), select.using(reference), FlopCounterMode(display=False) as counter:
        model = CodesignModel(recipe.model).train(train)
        with torch.set_grad_enabled(train):
            found = model(noisy_batch_of_shape(size, length))
            if train:
                losses(found, noisy_batch_of_shape(size, length), recipe.loss)["train_loss"].mean().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["multiflow_legacy", "pairformer_heavy", "linear_memory", "pair_bias_light"])
@pytest.mark.parametrize(("length", "share"), [(37, 0.0), (100, 0.5)])
def test_flops_are_those_that_torch_counts_at_any_length(name, length, share):
    recipe = recipe_of(f"recipe={name}", f"flow.self_condition_share={share}")
    forward = counted(recipe, 1, length)
    assert TrainFlops(recipe)(4, length) == pytest.approx(4 * (3 + share) * forward, rel=1e-9)


def test_a_backward_pass_has_two_products_for_each_of_the_forward_one():
    """But where an input needs no gradient."""
    recipe = recipe_of("recipe=tiny", "flow.self_condition_share=0")
    assert counted(recipe, 2, 24, train=True) == pytest.approx(TrainFlops(recipe)(2, 24), rel=0.05)


@pytest.mark.parametrize(
    "recycles",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in ["1", "3", "{train:1,infer:3}"]), "{train:3,infer:1}"],
)
def test_what_is_recycled_has_no_backward_pass(recycles):
    recipe = recipe_of("recipe=tiny", "flow.self_condition_share=0", f"model.trunk.num_recycles={recycles}")
    assert counted(recipe, 2, 24, train=True) == pytest.approx(TrainFlops(recipe)(2, 24), rel=0.05)


@pytest.mark.slow
def test_how_it_is_computed_changes_nothing():
    how = ("kernels=torch", "trainer.precision=bf16-mixed", "model.trunk.stages.0.checkpoint=true")
    assert TrainFlops(recipe_of("recipe=tiny", *how))(2, 50) == TrainFlops(recipe_of("recipe=tiny"))(2, 50)


def test_counting_leaves_the_kernels_as_they_are():
    before = select.settings()
    TrainFlops(recipe_of("recipe=tiny"))(1, 16)
    assert select.settings() is before and torch.get_default_device().type == "cpu"
