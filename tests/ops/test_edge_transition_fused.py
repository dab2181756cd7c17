"""The fused edge transition: under Triton's interpreter, on a GPU at every width that it takes, and what it refuses."""

import os

import pytest
import torch

from app.devices import NVIDIA
from app.ops import check
from app.ops.backend import Call
from app.ops.edge_transition import edge_transition
from app.ops.edge_transition.tiles import limit
from tests.conftest import HAS_GPU

pytest.importorskip("triton", reason="needs triton")
NARROW = {"c_z": 16, "width": 8}


@pytest.mark.skipif(HAS_GPU, reason="the interpreter is for machines without a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("length", "widths"), [(1, {}), (5, {}), (9, NARROW), (4, {"c_z": 48, "width": 40})])
def test_the_fused_kernels_under_the_interpreter(length, widths, dtype):
    assert os.environ["TRITON_INTERPRET"] == "1"
    errors = check.compare(edge_transition, "triton", edge_transition.example(length, 2, **widths), "cpu", dtype)
    assert errors.within(check.BOUNDS[dtype]), errors


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("widths", [{}, NARROW, {"c_z": 64, "width": 96}, {"c_z": 48, "width": 40}, {"width": 192}])
@pytest.mark.parametrize("length", [1, 19])
def test_the_fused_kernels_at_every_width_that_they_take(length, widths, dtype):
    example = edge_transition.example(length, 2, **widths)
    assert limit(edge_transition.describe(**example)) is None
    errors = check.compare(edge_transition, "triton", example, NVIDIA, dtype)
    assert errors.within(check.BOUNDS[dtype]), errors


def test_limits_are_told():
    def reason(c_z: int, hidden: int) -> str | None:
        return limit(Call(NVIDIA, torch.bfloat16, 10, (c_z, hidden), True))

    assert reason(128, 384) is None
    assert "multiples of 16" in reason(120, 376)
    assert "at most" in reason(256, 512)
