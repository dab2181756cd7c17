"""Distograms, bin by bin, and the edge embedding by features that are on and off."""

import pytest
import torch

from app.devices import NVIDIA
from app.ops import check
from app.ops.backend import Call
from app.ops.edge_embedding import edge_embedding, gathered
from app.ops.edge_embedding.distogram import bin_of, distogram
from tests.factories import generator
from tests.memory import peak


def test_distogram_bins_are_open_and_the_last_has_no_end():
    lower = torch.linspace(1e-3, 20, 22)
    middle = ((lower[1:] + lower[:-1]) / 2).tolist()
    at = [0.0, 1e-4, *middle, 20.1, 1e4]
    positions = torch.stack([torch.tensor(at), torch.zeros(len(at)), torch.zeros(len(at))], -1)[None]
    found = distogram(positions, 22)[0, 0]
    assert (found[:2] == 0).all()  # nearer than the first edge
    assert found[2:-2].argmax(-1).tolist() == list(range(21))
    assert found[-2:].argmax(-1).tolist() == [21, 21]
    assert (found[2:].sum(-1) == 1).all()


def test_distogram_on_an_edge_is_in_no_bin():
    at = torch.zeros(1, 2, 3)
    at[0, 1, 0] = 20.0
    assert distogram(at, 22)[0, 0, 1].sum() == 0


def test_distogram_of_nothing_known_is_zero_and_of_a_moved_cloud_the_same():
    assert (distogram(torch.zeros(2, 5, 3), 22) == 0).all()
    cloud = 10 * torch.randn(2, 9, 3)
    assert torch.equal(distogram(cloud.flip(-1) + 3.0, 22).argmax(-1), distogram(cloud, 22).argmax(-1))
    assert torch.equal(distogram(cloud, 22), distogram(cloud, 22).transpose(1, 2))


def test_the_bin_of_a_distance_is_where_the_distogram_has_its_one():
    lower = torch.linspace(1e-3, 20, 22)
    at = torch.cat([torch.zeros(1), lower, 25 * torch.rand(300, generator=generator()), lower + 1e-4])
    positions = torch.stack([at, torch.zeros_like(at), torch.zeros_like(at)], -1)[None]
    one_hot = distogram(positions, 22)[0, 0]
    found = bin_of(at, 22)
    assert torch.equal(found > 0, one_hot.any(-1))
    assert torch.equal(found, (one_hot * torch.arange(1.0, 23)).sum(-1).long())


# The operation


SMALL = {"width": 8, "num_bins": 6, "c_z": 16}


def without(example: dict, *names: str) -> dict:
    """The example without a feature, and without its columns in the first layer's weight."""
    width, bins = SMALL["width"], SMALL["num_bins"]
    columns = {"trans_sc": (3 * width + bins, bins), "chain_idx": (3 * width + 2 * bins, 1)}
    columns["diffuse_mask"] = (3 * width + 2 * bins + 1, 2)
    weight, bias = example["first"]
    keep = torch.ones(weight.shape[1], dtype=torch.bool)
    for name in names:
        start, many = columns[name]
        keep[start : start + many] = False
    gone = {name: None for name in names if name != "trans_sc"}
    trans = example["trans"][:1] if "trans_sc" in names else example["trans"]
    return {**example, **gone, "trans": trans, "first": (weight[:, keep], bias)}


@pytest.mark.parametrize("largest", [1, 5 * 2 * 7 * 16, 2**30], ids=["1 row", "5 rows", "all"])
@pytest.mark.parametrize("off", [(), ("trans_sc",), ("chain_idx",), ("trans_sc", "chain_idx", "diffuse_mask")])
def test_gathering_is_the_reference_in_values_and_all_gradients(off, largest, monkeypatch):
    monkeypatch.setattr(gathered, "LARGEST", largest)
    given = without(edge_embedding.example(7, batch=2, **SMALL), *off)
    errors = check.compare(edge_embedding, "torch", given, "cpu", torch.float32)
    assert errors.within(check.BOUNDS[torch.float32]), errors


def test_no_self_conditioning_is_no_bin():
    given = edge_embedding.example(5, **SMALL)
    nothing = {**given, "trans": (given["trans"][0], torch.zeros_like(given["trans"][1]))}
    expected = edge_embedding.function("torch")(**without(given, "trans_sc"))
    torch.testing.assert_close(edge_embedding.function("torch")(**nothing), expected)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_under_autocast_edges_are_in_its_type(backend):
    given = check.cast(edge_embedding.example(5, **SMALL), torch.device("cpu"), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = edge_embedding.function(backend)(**given)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), edge_embedding(**given), atol=0.1, rtol=0.05)


def test_memory_is_that_of_the_result_and_a_few_rows(monkeypatch):
    monkeypatch.setattr(gathered, "LARGEST", 2 * 64 * 16)

    def used(backend: str, backward: bool) -> int:
        given = check.cast(edge_embedding.example(64, **SMALL), torch.device("cpu"), torch.float32)
        function, node = edge_embedding.function(backend), given["node"].requires_grad_()
        return peak(lambda node: function(**{**given, "node": node}), node, backward=backward)

    result = 4 * 16 * 64**2
    assert used("torch", backward=False) < 2.6 * result
    assert used("torch", backward=False) < used("reference", backward=False) / 2
    assert used("torch", backward=True) < 4.2 * result  # three of them the loss's own


@pytest.mark.parametrize(
    ("device", "dtype", "backward", "first"),
    [
        ("cpu", torch.float32, True, "torch"),
        ("cpu", torch.bfloat16, False, "torch"),
        (NVIDIA, torch.bfloat16, False, "triton"),
        (NVIDIA, torch.float32, False, "torch"),
        (NVIDIA, torch.bfloat16, True, "reference"),
    ],
)
def test_auto_tries_first_what_was_measured_to_be_faster(device, dtype, backward, first):
    assert edge_embedding.order(Call(device, dtype, 256, (64, 22, 128), backward))[0] == first
