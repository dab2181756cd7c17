"""Small runs of train.py, in this process or in one of their own, for the tests of training."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.training.module import CodesignModule
from app.training.throughput import MEASURED
from app.training.validate import SECONDS
from tests.data import made_structures

ROOT = Path(__file__).parents[2]
EPOCH = 7  # batches

MODEL = [
    "recipe=tiny",
    "model.c_s=16",
    "model.c_z=8",
    "model.node_embed.c_position=8",
    "model.node_embed.c_time=8",
    "model.edge_embed.feature_width=8",
    "model.edge_embed.num_bins=6",
    "model.trunk.stages.0.depth=2",
    "model.trunk.stages.0.num_heads=2",
    "model.trunk.stages.0.head_width=4",
    "model.trunk.stages.0.transformer_heads=2",
    "model.trunk.stages.0.transformer_dropout=0.1",
]


def data(folder: Path) -> list[str]:
    """Arguments for 13 chains of 8, 9 and 10 residues, made where they are not there: `EPOCH` batches."""
    for number in range(13):
        if not (path := folder / "structures" / f"made{number:02d}.pdb").exists():
            made_structures.write(path, 8 + number % 3, aatype=number, seed=number)
    return [
        "data=structures",
        f"data.path={folder / 'structures'}",
        f"data.cache_dir={folder / 'cache'}",
        "data.workers=1",
        "data.min_length=4",
        "data.loader.max_batch_size=2",
    ]


def arguments(folder: Path, *more: str) -> list[str]:
    """A new run of a small model on a few made chains, on the CPU."""
    return [*MODEL, *data(folder), "trainer=cpu", "callbacks.curves=false", "callbacks.report=false", *more]


def in_own_process(*arguments: str, **options) -> subprocess.Popen:
    """train.py itself, with one thread."""
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=one_thread(), **streams | options)


def one_thread() -> dict[str, str]:
    """The environment for processes beside this one."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def checkpoint(out: Path, name: str = "last.ckpt") -> dict:
    return torch.load(out / "checkpoints" / name, weights_only=True)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return checkpoint(out)["state_dict"]


def average(out: Path) -> dict[str, torch.Tensor]:
    """The moving average of the weights."""
    return checkpoint(out)["ema_state_dict"]


def assert_same_weights(first: Path, second: Path) -> None:
    """Bit by bit, with their average, the optimizer's state and the schedule."""
    a, b = checkpoint(first), checkpoint(second)
    assert a["global_step"] == b["global_step"]
    for kind in ("state_dict", "ema_state_dict"):
        one, other = a.get(kind, {}), b.get(kind, {})
        assert one.keys() == other.keys()
        assert not [name for name, tensor in one.items() if not torch.equal(tensor, other[name])]
    assert a["lr_schedulers"] == b["lr_schedulers"]
    states = [ckpt["optimizer_states"][0]["state"] for ckpt in (a, b)]
    assert states[0].keys() == states[1].keys() and states[0]
    for index, state in states[0].items():
        assert all(torch.equal(value, states[1][index][name]) for name, value in state.items())


def rows(out: Path) -> list[dict[str, str]]:
    """metrics.csv, without what no run repeats."""
    with (out / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in (*MEASURED, SECONDS)} for row in csv.DictReader(file)]


class Crash(Exception):
    pass


def crash_at(batch: int, monkeypatch: pytest.MonkeyPatch, do: Callable[[], None] | None = None) -> None:
    """Let training end with `Crash`, or `do` something else, in the batch of that number, counted from the start."""
    step = CodesignModule.training_step

    def training_step(self, *args):
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.processed == batch:
            if do is None:
                raise Crash
            do()
        return step(self, *args)

    monkeypatch.setattr(CodesignModule, "training_step", training_step)
