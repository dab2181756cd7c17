"""Embeddings and distograms as the formulas say, number by number."""

import math

import pytest
import torch

from app.model.features import distogram, index_embedding, time_embedding


@pytest.mark.parametrize(("width", "max_len"), [(8, 2056), (32, 100)])
def test_index_embedding(width, max_len):
    index = torch.tensor([[0, 1, 7], [-3, 500, 2]])
    found = index_embedding(index, width, max_len)
    assert found.shape == (2, 3, width)
    for b in range(2):
        for n in range(3):
            for i in range(width // 2):
                angle = index[b, n].item() * math.pi / max_len ** (2 * i / width)
                assert found[b, n, i].item() == pytest.approx(math.sin(angle), abs=2e-4)
                assert found[b, n, width // 2 + i].item() == pytest.approx(math.cos(angle), abs=2e-4)
    torch.testing.assert_close(index_embedding(index.float(), width, max_len), found)


def test_time_embedding():
    t, width = torch.tensor([[0.0], [0.01], [0.5], [1.0]]), 10
    found = time_embedding(t, width)
    assert found.shape == (4, width)
    for b in range(4):
        for k in range(5):
            angle = 2056 * t[b].item() * math.exp(-k * math.log(2056) / 4)
            assert found[b, k].item() == pytest.approx(math.sin(angle), abs=5e-4)
            assert found[b, 5 + k].item() == pytest.approx(math.cos(angle), abs=5e-4)


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
