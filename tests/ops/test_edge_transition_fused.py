"""The fused edge transition: under Triton's interpreter, on a GPU at every width that it takes, and what it refuses."""

import os

import pytest
import torch

from app.devices import NVIDIA
from app.ops import check
from app.ops.backend import Call
from app.ops.edge_transition import edge_transition
from app.ops.edge_transition.tiles import WIDEST_HIDDEN, backward_tile, forward_tile, limit
from tests.conftest import HAS_GPU
from tests.factories import generator
from tests.ops.layouts import EVERY_LAYOUT

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


@pytest.mark.parametrize(
    ("widths", "told"),
    [
        ((128, 384, 384, 128), None),
        ((128, 384, 384, 64), None),
        ((128, 512, 512, 128), None),
        ((120, 376, 376, 128), "multiples of 16"),
        ((128, 384, 384, 100), "multiples of 16"),
        ((144, 512, 512, 128), "edges of at most 128"),
        ((128, 384, 384, 144), "edges of at most 128"),
        ((128, 528, 528, 128), "hidden layers of at most 512"),
        ((128, 256, 384, 128), "of one width, not of 256 and 384"),
    ],
)
def test_limits_are_told(widths, told):
    reason = limit(Call(NVIDIA, torch.bfloat16, 10, widths, True))
    assert reason is None if told is None else told in reason


def test_a_call_tells_all_widths_that_limits_speak_of():
    given = edge_transition.example(3, c_z=16, width=8)
    narrower = tuple(x[:8] for x in given["last"])
    assert edge_transition.describe(**{**given, "last": narrower}).widths == (16, 32, 32, 8)


@pytest.mark.parametrize("of_direction", [forward_tile, backward_tile])
def test_a_tile_has_all_its_hidden_layer_in_registers(of_direction):
    """As many numbers as at Multiflow's width, where it was measured to fit, in blocks of a power of two."""
    before = None
    for hidden in range(16, WIDEST_HIDDEN + 1, 16):
        tile = of_direction(hidden)
        assert all(side & (side - 1) == 0 for side in tile), tile
        assert tile.pairs * tile.hidden * -(-hidden // tile.hidden) <= 128 * 384
        assert before is None or tile.pairs <= before.pairs  # no wider a layer has a larger tile
        before = tile
    assert of_direction(384).pairs == 128


@pytest.mark.skipif(HAS_GPU, reason="the interpreter is for machines without a GPU")
@pytest.mark.parametrize("layout", EVERY_LAYOUT)
def test_the_operator_itself_takes_any_layout(layout):
    """A compiler that calls it may lay out as it likes what the operation makes before."""
    from app.ops.edge_transition.fused import pair_mlp

    sizes = {
        "edge": (2, 3, 3, 16),
        "first_i": (2, 3, 32),
        "first_j": (2, 3, 32),
        "last_i": (2, 3, 16),
        "last_j": (2, 3, 16),
    }
    sizes |= {"w1": (32, 16), "w2": (32, 32), "b2": (32,), "w3": (16, 32), "norm_weight": (16,), "norm_bias": (16,)}
    source = generator()
    given = {name: torch.randn(size, generator=source) for name, size in sizes.items()}
    given["mask"] = torch.ones(2, 3, 3)
    expected = check.run(pair_mlp, given)
    found = check.run(lambda **a: pair_mlp(**{name: layout(x) for name, x in a.items()}), given)
    torch.testing.assert_close(found.outputs, expected.outputs)
    torch.testing.assert_close(found.gradients, expected.gradients)
