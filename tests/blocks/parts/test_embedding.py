"""Sinusoidal embeddings as the formulas say, number by number."""

import math

import pytest
import torch

from app.blocks.parts.embedding import index_embedding, time_embedding


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
