"""What bench does on an NVIDIA GPU alone, walked through on a pretended one; what is fast there, this cannot tell."""

import dataclasses
import types

import pytest
import torch

from app.bench import bandwidth, cases, esm, longest, machine, measure, memory, models, run, sampling, timing
from app.bench.run import Request, measured
from app.model.esm.settings import EsmSize
from tests import cuda_graph
from tests.bench.here import Here

CPU = torch.device("cpu")
MODELS = [f"{name}:tiny" for name in cases.OF_A_RECIPE]
OTHERS = ["esm", "self_attention", "invariant_point_attention-train"]


class Event:
    """One millisecond passes between any two."""

    def __init__(self, enable_timing: bool):
        assert enable_timing

    def record(self) -> None:
        pass

    def elapsed_time(self, other: "Event") -> float:
        return 1.0


@pytest.fixture(autouse=True)
def pretended(monkeypatch):
    """The CPU under the GPU's name; a compiler that does nothing, and graphs that are none."""
    cases.cases()  # made once for all tests, under the real names
    for module in (bandwidth, longest, machine, measure, memory, models, sampling, timing):
        if hasattr(module, "NVIDIA"):
            monkeypatch.setattr(module, "NVIDIA", "cpu")
    for module in ("app.bench.models", "app.training.recorded"):
        cuda_graph.install(monkeypatch, module)
    monkeypatch.setattr(timing, "_CACHE", 1)
    monkeypatch.setattr(timing, "_ROUND", 0)
    monkeypatch.setattr(sampling, "MOST_DESIGNS", 2)
    monkeypatch.setattr(sampling, "MEASURED", {"cpu": 2})
    monkeypatch.setattr(longest, "FIRST", 8)
    monkeypatch.setattr(longest, "LAST", 16)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda *_: 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 3 * 2**20)
    monkeypatch.setattr(torch, "compile", lambda model, **how: model)
    monkeypatch.setattr(run, "Apart", Here)
    monkeypatch.setattr(memory, "return_what_is_freed", lambda: None)
    monkeypatch.setattr(esm, "SHAPE", "esm2_8m")
    monkeypatch.setitem(esm.PUBLISHED, "esm2_8m", ("none", EsmSize(2, 32, 4)))
    for made in (esm._language_model, esm._files):
        made.cache_clear()
    yield
    for made in (esm._language_model, esm._files):
        made.cache_clear()


@pytest.mark.parametrize("case", MODELS + OTHERS)
def test_every_kind_of_case(case):
    of = cases.cases().get(cases.name_of(case))
    batch = of.sizes["cuda"].batch if of and case.startswith("sampling") else 1
    said: list[str] = []
    asked = Request([case], "cpu", lengths=[8], dtypes=["bfloat16"], batch=batch, repeats=2)
    found = [row for row, _ in measured(asked, said.append)]
    assert {row.dtype for row in found} == {"bfloat16"}
    assert {"reference", "auto"} <= {row.backend for row in found}
    for row in found:
        assert row.seconds > 0 and row.peak_mb == 2.0
        assert not any(" failed" in line for line in said), said


def test_the_whole_table_is_of_these_kinds():
    known = {cases.name_of(case) for case in MODELS} | {*cases.cases()}
    assert {cases.name_of(case) for case in cases.standard("cuda")} <= known


def test_seconds_are_those_between_events():
    assert timing.medians({"call": lambda: None}, CPU, repeats=3) == {"call": 1e-3}
    assert timing._by_events(lambda: None, CPU, 4) == [1e-3] * 4


def test_the_gpu_is_busy_until_the_host_has_launched_a_queued_call(monkeypatch):
    """2 ms of flushes before each call that took 1 ms at first; one flush where it is not queued."""
    flushes = []
    monkeypatch.setattr(timing, "_FLUSH", 1e-4)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: types.SimpleNamespace(zero_=lambda: flushes.append(1)))
    timing.medians({"call": lambda: None}, CPU, repeats=2, queued=True)
    assert len(flushes) == 1 + 21
    flushes.clear()
    timing.medians({"call": lambda: None}, CPU, repeats=2)
    assert len(flushes) == 2


def test_the_header_tells_of_the_gpu(monkeypatch):
    @dataclasses.dataclass
    class Properties:
        name = "Pretended"
        major, minor, total_memory, multi_processor_count = 9, 0, 80 * 2**30, 132

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    about = machine.describe(CPU, "tf32")
    assert about["GPU"] == "Pretended, capability 9.0, 80 GiB, 132 multiprocessors"
    assert about["environment"].startswith("tf32, ")
