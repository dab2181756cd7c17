"""More processes than the run has, or fewer: each would train all of it, into one folder."""

import pytest

from app.errors import UserError
from app.training.run import train
from tests.training.runs import arguments

TORCHRUN = {"TORCHELASTIC_RUN_ID": "one", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
SLURM = {
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


@pytest.mark.parametrize(
    ("environment", "typed", "said"),
    [
        (TORCHRUN, [], "torchrun starts 2 processes, and this run has 1"),
        (TORCHRUN, ["trainer.strategy=ddp"], "torchrun starts 2 processes, and this run has 1"),
        (TORCHRUN, ["trainer.strategy=ddp", "trainer.devices=3"], "torchrun starts 2 processes, and this run has 3"),
        (SLURM, [], "SLURM starts 2 processes, and this run has 1"),
    ],
)
def test_it_is_refused(tmp_path, monkeypatch, environment, typed, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"{said}, .*trainer=ddp or trainer=fsdp with trainer.devices=PROCESSES"):
        train(arguments(tmp_path, *typed, f"out={tmp_path / 'out'}"))
    assert not (tmp_path / "out").exists()


def test_other_nodes_that_nobody_starts_are_not_waited_for(tmp_path):
    typed = ("trainer.strategy=ddp", "trainer.num_nodes=2", f"out={tmp_path / 'out'}")
    with pytest.raises(UserError, match="num_nodes=2: start it by torchrun or SLURM on each of them"):
        train(arguments(tmp_path, *typed))
    assert not (tmp_path / "out").exists()


def test_what_lightning_will_not_have_of_slurm_is_told(tmp_path, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(UserError, match="Use `--ntasks-per-node=2` instead"):
        train(arguments(tmp_path, f"out={tmp_path / 'out'}"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["trainer.devices=-1"], "trainer"),
        (["trainer.devices=2", "trainer.strategy=ddp_spawn"], "trainer.strategy: .*choose ddp or fsdp"),
        (["trainer.devices=2", "trainer.strategy=ddp_notebook"], "trainer.strategy: .*choose ddp or fsdp"),
    ],
)
def test_so_are_devices_and_strategies_that_cannot_serve(tmp_path, typed, said):
    with pytest.raises(UserError, match=said):
        train(arguments(tmp_path, *typed, f"out={tmp_path / 'out'}"))
    assert not (tmp_path / "out").exists()
