"""Distograms, bin by bin."""

import torch

from app.ops.edge_embedding.distogram import distogram


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
