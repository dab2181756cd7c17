from contextlib import nullcontext

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


def test_a_gpu_becomes_the_current_one_and_other_devices_ask_for_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: asked.append(device) or nullcontext())
    for device in ("cpu", "mps", "cuda:1"):
        with devices.current(torch.device(device)):
            pass
    assert asked == [torch.device("cuda:1")]


def test_to_make_a_device_current_breaks_no_compiled_graph():
    def doubled(x: torch.Tensor) -> torch.Tensor:
        with devices.current(x.device):
            return x + x

    assert torch.compile(doubled, backend="eager", fullgraph=True)(torch.ones(2)).tolist() == [2, 2]


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


@pytest.mark.parametrize(
    ("kind", "precision", "dtype"),
    [
        ("cpu", "auto", torch.float32),
        ("cpu", "bfloat16", torch.bfloat16),
        ("cpu", "float16", None),
        ("mps", "auto", torch.float32),
        ("mps", "bfloat16", None),
        ("mps", "float16", torch.float16),
        ("cuda", "auto", torch.bfloat16),
        ("cuda", "float32", torch.float32),
        ("cuda", "float16", torch.float16),
    ],
)
def test_precisions_that_a_device_has(monkeypatch, kind, precision, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    if dtype is not None:
        assert devices.choose_dtype(precision, torch.device(kind)) == dtype
        return
    with pytest.raises(UserError, match=f"key.a={precision}: the {kind} device has none here: use key.a=auto"):
        devices.choose_dtype(precision, torch.device(kind), key="key.a")


def test_an_old_gpu_has_no_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert devices.choose_dtype("auto", torch.device("cuda")) == torch.float32
    with pytest.raises(UserError, match="precision=bfloat16"):
        devices.choose_dtype("bfloat16", torch.device("cuda"))


@pytest.mark.parametrize(
    ("kind", "dtype", "capability", "runs"),
    [
        ("cuda", torch.bfloat16, (9, 0), True),
        ("cuda", torch.float16, (8, 0), True),
        ("cuda", torch.float16, (7, 5), False),
        ("cuda", torch.float32, (9, 0), False),
        ("mps", torch.float16, None, False),
        ("cpu", torch.bfloat16, None, False),
    ],
)
def test_where_flash_attention_runs(monkeypatch, kind, dtype, capability, runs):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.runs_flash_attention(torch.device(kind), dtype) is runs


@pytest.mark.parametrize(("kind", "waits"), [("cuda", 1), ("mps", 0), ("cpu", 0)])
def test_only_a_device_that_copies_on_its_own_is_waited_for(monkeypatch, kind, waits):
    asked = []

    class Stream:
        def __init__(self, device):
            self.device = device

        def synchronize(self):
            asked.append(self.device)

    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    devices.wait_for(torch.device(kind))
    assert asked == [torch.device(kind)] * waits


def test_seeded_numbers_leave_the_others_as_they_would_have_been():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with devices.seeded(7, torch.device("cpu")):
        first = torch.rand(2)
    assert torch.equal(torch.rand(4), expected)
    with devices.seeded(7, torch.device("cpu")):
        assert torch.equal(torch.rand(2), first)
