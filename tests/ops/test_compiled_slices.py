"""What works in slices, under torch.compile: one graph for all batch sizes and lengths, and the same results."""

from collections.abc import Callable

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from app.ops import select
from app.ops.check import cast, run
from app.ops.edge_embedding import gathered
from app.ops.edge_transition import chunked as edge_transition
from app.ops.geometric_attention import chunked as geometric_attention
from app.ops.triangle_attention import chunked as triangle_attention
from app.ops.triangle_multiplication import chunked as triangle_multiplication
from app.types import Frames
from tests.ops.test_geometric_attention import arguments

OF_EXAMPLE = {
    "edge_embedding": {"width": 4, "num_bins": 5, "c_z": 8},
    "edge_transition": {"c_z": 8, "width": 4},
    "triangle_attention": {"num_heads": 2, "width": 4},
    "triangle_multiplication": {"c_z": 8, "inner": 8},
}
SMALL = [
    (gathered, "LARGEST", 2**8),
    (edge_transition, "PAIRS_IN_CACHE", 32),
    (edge_transition, "PAIRS_ON_GPU", 32),
    (geometric_attention, "QUERIES", 3),
    (triangle_attention, "LARGEST", 2**8),
    (triangle_attention, "LARGEST_ON_GPU", 2**8),
    (triangle_multiplication, "LARGEST", 2**8),
    (triangle_multiplication, "LARGEST_ON_GPU", 2**8),
]


def given(name: str, length: int, batch: int, dtype: torch.dtype) -> dict:
    if name != "geometric_attention":
        example = select.operations()[name].example(length, batch=batch, **OF_EXAMPLE[name])
        return cast(example, torch.device("cpu"), dtype)
    made = {key: x[:1].expand(batch, *x.shape[1:]) if x.dim() > 1 else x for key, x in arguments(length).items()}
    return made | {"frames": Frames(made.pop("rotmats"), made.pop("trans"))}


@pytest.fixture(autouse=True)
def _slices(monkeypatch):
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def function_of(name: str):
    return geometric_attention.geometric_attention if "geom" in name else select.operations()[name].function("torch")


def counting() -> tuple[list, Callable]:
    """What was compiled, and a backend that takes it apart for both passes and runs it as it is."""
    graphs: list = []

    def forward(graph, inputs):
        graphs.append(graph)
        return backward(graph, inputs)

    def backward(graph, inputs):
        return make_boxed_func(graph.forward)

    return graphs, aot_autograd(fw_compiler=forward, bw_compiler=backward)


@pytest.mark.parametrize(
    ("backward", "autocast"),
    [(True, False), pytest.param(True, True, marks=pytest.mark.slow), (False, True)],
    ids=["training", "training in half precision", "inference in half precision"],
)
@pytest.mark.parametrize("name", [*OF_EXAMPLE, "geometric_attention"])
def test_one_graph_serves_all_lengths(name, backward, autocast):
    function = function_of(name)
    graphs, backend = counting()
    compiled = torch.compile(lambda **arguments: function(**arguments), backend=backend, fullgraph=True, dynamic=True)
    for length, batch in ((12, 5), (9, 6), (40, 5), (35, 7)):
        example = given(name, length, batch, torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found, expected = run(compiled, example, backward), run(function, example, backward)
        for one, other in zip(found.outputs, expected.outputs, strict=True):
            assert torch.equal(one, other)
        for key, gradient in expected.gradients.items():
            size = gradient.abs().max().item()
            torch.testing.assert_close(found.gradients[key], gradient, rtol=0, atol=size * (0.02 if autocast else 1e-5))
    assert len(graphs) == 1
