"""Bench and doctor on an NVIDIA GPU itself: processes that can use it, rows that are right."""

import pytest
import torch

from app.bench import doctor
from app.bench.apart import Apart
from app.bench.bandwidth import copy_bandwidth
from app.bench.run import Request, measured
from app.devices import NVIDIA
from app.ops import select

pytestmark = pytest.mark.gpu
NAME = "pair_bias_attention"


def test_a_process_uses_the_gpu_that_this_one_uses_too():
    assert torch.ones(1, device=NVIDIA).item() == 1
    with Apart() as apart:
        assert apart(copy_bandwidth, NVIDIA) > 1e10
        assert type(apart._process).__name__ == "ForkServerProcess", "what is imported before the fork looks for a GPU"


def test_doctor_tries_three_types(monkeypatch):
    operation = select.operations()[NAME]
    monkeypatch.setattr(select, "operations", lambda: {NAME: operation})
    found = {row.backend: row for row in doctor.examine(NVIDIA, (64,))}
    for name in ("reference", "torch"):
        assert (found[name].status, found[name].reason) == ("ok", "")
        assert found[name].dtypes.keys() == {"float32", "bfloat16", "float16"}
        assert all(one.seconds[64] > 0 for one in found[name].dtypes.values())
    assert all(row.status in ("ok", "unavailable") for row in found.values())


@pytest.mark.parametrize(
    "case",
    [
        NAME,
        f"{NAME}-train",
        "model-forward:tiny",
        "model-train:tiny",
        "model-train-recorded:tiny",
        "model-train-compiled-recorded:tiny",
        "sampling:tiny",
    ],
)
def test_bench_has_every_figure(case):
    said: list[str] = []
    request = Request([case], NVIDIA, lengths=[64], dtypes=["bfloat16"], batch=2, repeats=2)
    found = [row for row, _ in measured(request, said.append)]
    assert {"reference", "auto"} <= {row.backend for row in found}
    for row in found:
        assert row.seconds and row.peak_mb and row.max_error is not None, (row, said)
