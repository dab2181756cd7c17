"""What tests of kernels have under Triton's interpreter."""

from importlib.util import find_spec

import pytest

from app.ops.invariant_point_attention.tiles import Tiles
from tests.conftest import HAS_GPU

NARROW = {
    "invariant_point_attention": {"num_heads": 2, "width": 4, "num_qk_points": 2, "num_v_points": 3, "c_z": 16},
    "edge_embedding": {"width": 8, "num_bins": 6, "c_z": 16},
    "edge_transition": {"c_z": 16, "width": 8},
    "self_attention": {"width": 16, "num_heads": 2},
}
"""Operations with kernels of our own, and widths at which the interpreter is quick."""


@pytest.fixture
def large_tiles(monkeypatch):
    """Of the point attention: the interpreter takes its time by the operation, however large its operands."""
    if find_spec("triton") and not HAS_GPU:
        from app.ops.invariant_point_attention import fused

        monkeypatch.setattr(fused, "RESIDUES", 32)
        monkeypatch.setattr(fused, "fitted", lambda *_: Tiles(16, 16, warps=4, stages=1))
