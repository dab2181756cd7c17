"""Two ranks that read other data say so, both of them, in place of waiting for each other."""

import multiprocessing
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import distributed

from app.data import datamodule
from app.data.datamodule import ProteinDataModule
from app.errors import UserError
from app.training.same_data import refuse_other_data


class Lengths:
    """A data set that is never read."""

    def __init__(self, values: dict):
        self.names, self.lengths = values["names"], values["lengths"]
        self.contents = np.array(values["contents"])

    def draw(self, _epoch, _seed):
        return range(len(self.names))


def rank(number: int, store: Path, values: dict, answers) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=2)
    datamodule.KINDS["lengths"] = Lengths
    data = ProteinDataModule({"kind": "lengths", **values})
    data.trainer = SimpleNamespace(global_rank=number, world_size=2, fit_loop=SimpleNamespace(restarting=False))
    data.setup()
    data.train_dataloader()
    try:
        refuse_other_data(SimpleNamespace(datamodule=data))
        answers.put("")
    except UserError as error:
        answers.put(str(error))
    distributed.destroy_process_group()


def answers_of(tmp_path, other: dict) -> list[str]:
    """What both ranks say where the second has `other` data."""
    values = {"names": ["a", "b", "c"], "lengths": [5, 6, 7], "contents": [1, 2, 3]}
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    each = [values, values | other]
    ranks = [fork.Process(target=rank, args=(k, tmp_path / "store", each[k], answers)) for k in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    return [answers.get() for _ in ranks]


@pytest.mark.skipif(not distributed.is_available() or sys.platform != "linux", reason="forks two processes")
@pytest.mark.parametrize(
    "other",
    [
        {"names": ["a", "b"], "lengths": [5, 6], "contents": [1, 2]},
        {"names": ["a", "b", "d"]},
        {"lengths": [5, 6, 8]},
        {"contents": [1, 2, 4]},
    ],
)
def test_other_data_are_refused_on_both(tmp_path, other):
    first, second = answers_of(tmp_path, other)
    assert first == second
    assert first.startswith("data: rank 0 has 3 examples in 2 batches an epoch, rank 1 has ") and "\n" not in first


@pytest.mark.skipif(not distributed.is_available() or sys.platform != "linux", reason="forks two processes")
def test_the_same_data_pass(tmp_path):
    assert answers_of(tmp_path, {}) == ["", ""]
