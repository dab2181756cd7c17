"""Self-attention in our own kernel: under Triton's interpreter, on a GPU, and what it refuses."""

import pytest
import torch

from app.devices import NVIDIA
from app.ops import check
from app.ops.backend import Call
from app.ops.self_attention import self_attention, tiles
from app.ops.self_attention.tiles import ENOUGH, WIDEST, Tile, tile_of
from tests.conftest import HAS_GPU
from tests.factories import generator

pytest.importorskip("triton", reason="needs triton")
interpreted = pytest.mark.skipif(HAS_GPU, reason="the interpreter is for machines without a GPU")
SMALL = Tile(16, 16, warps=4, stages=1)
ONLY_HEAD, NARROW = {"num_heads": 1}, {"width": 16, "num_heads": 2}
REFERENCE = self_attention.function("reference")


@pytest.fixture
def streamed():
    return self_attention.function("triton")


@pytest.fixture
def small_tiles(monkeypatch):
    from app.ops.self_attention import streamed

    monkeypatch.setattr(streamed, "tile_of", lambda *_: SMALL)


def given(length: int, batch: int = 2, dtype: torch.dtype = torch.float32, device: str = "cpu", **widths) -> dict:
    return check.cast(self_attention.example(length, batch, **(widths or NARROW)), torch.device(device), dtype)


def off(function, arguments: dict) -> float:
    """The largest difference from the reference in float64, which is to be finite."""
    found, precise = function(**arguments), check.cast(arguments, torch.device("cpu"), torch.float64, all_of_it=True)
    return (found.double().cpu() - REFERENCE(**precise)).abs().max().item()


@interpreted
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("length", "widths"),
    [(1, {}), (16, NARROW), (17, NARROW), (50, ONLY_HEAD), (19, {"width": 48}), (5, {"width": 128})],
)
def test_the_kernel_under_the_interpreter(length, widths, dtype):
    errors = check.compare(self_attention, "triton", self_attention.example(length, 3, **widths), "cpu", dtype, False)
    assert errors.within(check.BOUNDS[dtype]), errors


@interpreted
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("present", [slice(20, 21), slice(0, 3), slice(40, None), slice(None)], ids=str)
def test_tiles_without_any_key_weigh_nothing(streamed, present):
    arguments = given(41, batch=1)
    arguments["key_mask"] = torch.zeros(1, 41)
    arguments["key_mask"][:, present] = 1
    assert off(streamed, arguments) < 1e-5


@interpreted
@pytest.mark.usefixtures("small_tiles")
def test_logits_may_be_large(streamed):
    arguments = given(33)
    assert off(streamed, arguments | {"q": 1e4 * arguments["q"]}) < 1e-3
    lowest = {"q": 1e15 * arguments["q"].abs(), "k": -1e19 * arguments["k"].abs()}
    assert off(streamed, arguments | lowest) < 1e-3


@interpreted
def test_without_any_key_the_result_is_zero_whatever_is_there(streamed):
    arguments = given(5)
    for name in "qkv":
        arguments[name][1] = torch.nan
    out = streamed(**arguments)
    assert (out[1] == 0).all() and out[0].isfinite().all()


@interpreted
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_what_is_no_number_is_not_hidden(streamed, name):
    arguments = given(20, batch=1)
    arguments["key_mask"][:] = 1
    arguments[name][0, 0, 18] = torch.nan
    rows = slice(18, 19) if name == "q" else slice(None)
    assert streamed(**arguments)[0, 0, rows].isnan().all()


@interpreted
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_a_mask_of_any_type(streamed, dtype):
    arguments = given(7)
    mask = arguments["key_mask"]
    expected = streamed(**arguments)
    assert torch.equal(streamed(**arguments | {"key_mask": mask.to(dtype)}), expected)


@interpreted
def test_views_of_one_projection_are_read_where_they_lie_and_heads_are_merged_without_a_copy(streamed, monkeypatch):
    """As in `TransformerLayer`."""
    projected = torch.randn(2, 6, 3 * 2 * 16, generator=generator())
    q, k, v = projected.unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
    mask = given(6)["key_mask"]
    expected = REFERENCE(q, k, v, mask)
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda x: x if x.is_contiguous() else pytest.fail("a copy"))
    out = streamed(q, k, v, mask)
    torch.testing.assert_close(out, expected)
    merged = out.transpose(1, 2).flatten(-2)
    assert merged.data_ptr() == out.data_ptr() and merged.is_contiguous()


@interpreted
def test_compiled_it_stays_one_operator_for_all_lengths(streamed):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda **arguments: streamed(**arguments), backend=backend, fullgraph=True, dynamic=True)
    for length, batch in ((5, 3), (9, 2), (12, 4)):
        arguments = given(length, batch)
        for quiet in (torch.no_grad, torch.inference_mode):
            with quiet():
                torch.testing.assert_close(compiled(**arguments), streamed(**arguments))
    assert len(graphs) <= 2  # in and out of inference mode


@interpreted
def test_a_compiler_is_told_the_shape_and_strides_that_come():
    from app.ops.self_attention.streamed import masked_attention

    arguments = given(5)
    torch.library.opcheck(masked_attention, tuple(arguments[name] for name in ("q", "k", "v", "key_mask")))


@interpreted
def test_under_autocast_it_is_the_reference_in_that_precision(streamed):
    arguments = given(9)
    with torch.autocast("cpu", torch.float16):
        found, expected = streamed(**arguments), REFERENCE(**arguments)
    assert found.dtype == expected.dtype == torch.float16
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


def call(width: int = 64, dtype: torch.dtype = torch.bfloat16, backward: bool = False, dropout: bool = False) -> Call:
    return Call(NVIDIA, dtype, 10, (width, 4), backward, dropout)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (call(), None),
        (call(dtype=torch.float32), None),
        (call(48), None),
        (call(128), None),
        (call(8), "multiple of 16 up to 128, not 8"),
        (call(144), "multiple of 16 up to 128, not 144"),
        (call(backward=True), "no backward pass"),
        (call(dropout=True), "no dropout"),
        (call(dtype=torch.float64), "has no float64"),
    ],
)
def test_what_it_takes(asked, told):
    reason = self_attention.backends["triton"].refuses(asked)
    assert reason is None if told is None else told in reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_auto_takes_it_without_gradients_alone(dtype):
    assert self_attention.order(call(dtype=dtype)) == ("triton", "torch")
    assert self_attention.order(call(dtype=dtype, backward=True)) == ("torch",)


ON_CHIP = 99 * 1024
"""Bytes that a program may have of a multiprocessor on the least of NVIDIA's GPUs with bfloat16."""


@pytest.mark.parametrize("width", [16, 64, 80, WIDEST])
@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("queries", [1, ENOUGH - 1, ENOUGH])
def test_tiles_fit_on_chip(queries, number, width):
    tile = tile_of(queries, width, number)
    assert all(side & (side - 1) == 0 and side >= 16 for side in tile[:2])
    assert (tile.queries + 2 * tile.stages * tile.keys) * width * number <= ON_CHIP


def test_many_queries_have_larger_tiles():
    for number in (2, 4):
        assert tile_of(ENOUGH, 64, number).queries > tile_of(ENOUGH - 1, 64, number).queries
    assert tile_of(ENOUGH, 64, 2) == tiles.MANY[2]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("widths", [{}, {"width": 16}, {"width": 48}, {"width": 128}, {"width": 80, "num_heads": 3}])
@pytest.mark.parametrize(("length", "batch"), [(1, 2), (19, 2), (300, 2), (129, 32)])
def test_the_kernel_on_a_gpu(length, batch, widths, dtype):
    example = self_attention.example(length, batch, **widths)
    errors = check.compare(self_attention, "triton", example, NVIDIA, dtype, backward=False)
    assert errors.within(check.BOUNDS[dtype]), errors


@pytest.mark.gpu
def test_a_recorded_launch_reads_the_mask_anew(streamed):
    arguments = given(70, batch=2, dtype=torch.bfloat16, device=NVIDIA, width=64)
    streamed(**arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = streamed(**arguments)
    arguments["key_mask"].copy_(arguments["key_mask"].flip(0))
    graph.replay()
    assert torch.equal(out, streamed(**arguments)) and not out[0].any() and out[1].any()


@pytest.mark.gpu
@pytest.mark.parametrize("far", [0, 1, 2], ids=["examples", "heads", "residues"])
def test_numbers_may_lie_billions_apart(streamed, far):
    """Offsets beyond 2^31, by products of numbers that are smaller."""
    shape = [3, 3, 33, 16]
    strides = [3 * 33 * 16, 33 * 16, 16, 1]
    strides[far] = 2**31 // (shape[far] - 1)
    memory = torch.empty(2**31 + 2**16, dtype=torch.float16, device=NVIDIA)
    x = memory.as_strided(shape, strides)
    x.copy_(torch.randn(shape, generator=generator()))
    mask = torch.ones(3, 33, device=NVIDIA)
    assert off(streamed, {"q": x, "k": x, "v": x, "key_mask": mask}) < 1e-2
