import pytest
import torch

from app import devices
from app.errors import UserError


@pytest.fixture
def machine(monkeypatch):
    def has(*kinds):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return has


@pytest.mark.parametrize(("kinds", "chosen"), [([], "cpu"), (["mps"], "mps"), (["cuda", "mps"], "cuda")])
def test_auto_takes_the_best_there_is(machine, kinds, chosen):
    machine(*kinds)
    assert devices.choose("auto") == torch.device(chosen)
    assert devices.choose(chosen) == torch.device(chosen)
    assert devices.choose("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_an_absent_device_is_an_error_with_its_cure(machine, name):
    machine()
    with pytest.raises(UserError, match=f"device={name} is not available.*device=auto.*cpu"):
        devices.choose(name)


def test_an_unknown_device_is_an_error():
    with pytest.raises(UserError, match="device=tpu is unknown: use one of auto, cpu, mps, cuda"):
        devices.choose("tpu")


def test_full_precision_holds_under_autocast():
    a = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with devices.full_precision(a.device):
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["cpu", "mps", "meta"])
def test_full_precision_on_any_device_type(kind):
    with devices.full_precision(kind):
        assert not torch.is_autocast_enabled("cpu")
