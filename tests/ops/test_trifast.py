"""The package trifast as it is, in Triton's interpreter on a CPU, where it is installed."""

import os
import sys
from importlib.util import find_spec

import pytest
import torch

from app.ops.check import BOUNDS, run
from app.ops.select import operations

OPERATION = operations()["triangle_attention"]

pytestmark = [
    pytest.mark.skipif(find_spec("trifast") is None, reason="trifast is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="a GPU is here: test_parity.py runs it there"),
]


@pytest.fixture
def trifast(monkeypatch, tmp_path):
    """The adapter, over a package that is told of a GPU when imported."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "interpreter")
    yield OPERATION.backends["trifast"].load("triangle_attention")
    sys.modules.pop("app.ops.triangle_attention.trifast", None)


@pytest.mark.parametrize(("length", "batch"), [(1, 1), (17, 2)])
def test_values_and_gradients_are_those_of_the_reference(trifast, length, batch):
    example = OPERATION.example(length, batch=batch, num_heads=2, width=16)
    exact = run(OPERATION.function("reference"), example)
    found = run(trifast, {name: value.float() for name, value in example.items()})
    assert not exact.outputs[0][:, 1:2].any() and not exact.gradients["v"][:, 1:2].any()
    torch.testing.assert_close(found.outputs[0].double(), exact.outputs[0], atol=1e-5, rtol=BOUNDS[torch.float32])
    for name, gradient in exact.gradients.items():
        torch.testing.assert_close(found.gradients[name].double(), gradient, atol=1e-4, rtol=BOUNDS[torch.float32])
        assert not found.gradients["v"][:, 1:2].any()


def test_nothing_is_tuned(trifast):
    from trifast import triton as kernels

    assert all(len(getattr(kernels, name).configs) == 1 for name in ("_fwd", "_bwd_q", "_bwd_kv", "_bwd_b"))
