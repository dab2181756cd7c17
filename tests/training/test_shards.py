"""Two ranks whose tensors are in shards: the first one gets what they were cut from."""

import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from app.training import shards
from app.training.shards import whole


def state() -> dict:
    torch.manual_seed(0)
    return {
        "even": torch.randn(4, 3),
        "uneven": torch.randn(5, 2, 2).bfloat16(),
        "none on the second": torch.randn(1, 7),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "integers": torch.arange(6),
        "of all": torch.tensor(2.5),
        "groups": [{"lr": 1e-3, "names": ["a", "b"], "nothing": None}, {"moment": torch.randn(2, 2)}],
    }


def in_shards(value, mesh):
    if isinstance(value, dict):
        return {name: in_shards(one, mesh) for name, one in value.items()}
    if isinstance(value, list):
        return [in_shards(one, mesh) for one in value]
    if not isinstance(value, torch.Tensor) or not value.dim():
        return value
    cut = distribute_tensor(value, mesh, [Shard(0)])
    return torch.nn.Parameter(cut) if isinstance(value, torch.nn.Parameter) else cut


def as_lists(value):
    """With the type of its numbers, so that two can be compared."""
    if isinstance(value, dict):
        return {name: as_lists(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_lists(one) for one in value]
    return (str(value.dtype), value.tolist()) if type(value) in (torch.Tensor, torch.nn.Parameter) else value


def rank(number: int, store: Path, how: str, answers) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=2)
    shards._in_one_exchange = getattr(shards, how)
    cut = in_shards(state(), init_device_mesh("cpu", (2,)))
    answers.put((number, as_lists(whole(cut)), as_lists(whole({"plain": torch.ones(2)}))))
    distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_available() or sys.platform != "linux", reason="forks two processes")
@pytest.mark.parametrize("how", ["_in_one_exchange", "_one_by_one"])
def test_the_first_of_two_ranks_has_it_all(tmp_path, how):
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    ranks = [fork.Process(target=rank, args=(k, tmp_path / "store", how, answers)) for k in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    found = {number: made for number, *made in (answers.get() for _ in ranks)}
    assert found == {0: [as_lists(state()), as_lists({"plain": torch.ones(2)})], 1: [{}, {}]}


def test_without_ranks_it_is_the_state_itself():
    made = state()
    assert whole(made) == made and whole(made)["even"] is made["even"]
