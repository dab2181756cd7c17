import pytest
import torch

from app.evaluation.secondary_structure import contents, secondary_structure
from tests.data.made_demo import SETS
from tests.factories import generator


def numbered(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(length, dtype=torch.int64), torch.arange(1, length + 1)


def test_it_is_what_the_demo_chains_were_folded_with():
    data = SETS["held_out"]
    right = total = 0
    for index in range(len(data)):
        ca = torch.from_numpy(data.protein(index).atom37[:, 1])
        found = secondary_structure(ca, *numbered(len(ca)))
        assert len(found) == len(ca)
        right += sum(one == other for one, other in zip(found, data.secondary_structure[index], strict=True))
        total += len(ca)
    assert right / total > 0.85


def test_random_points_and_what_fell_apart_have_none():
    for size in (5.0, 1e6, torch.nan):
        points = size * torch.randn(30, 3, generator=generator())
        assert contents(secondary_structure(points, *numbered(30))) == {"helix": 0, "strand": 0}
    assert secondary_structure(torch.zeros(2, 3), *numbered(2)) == "LL"


def test_a_helix_that_is_cut_in_two_by_chains_or_numbers_is_two():
    data = SETS["held_out"]
    index = next(k for k, states in enumerate(data.secondary_structure) if "H" * 16 in states)
    first = data.secondary_structure[index].index("H" * 16)
    ca = torch.from_numpy(data.protein(index).atom37[first : first + 16, 1])
    chain, number = numbered(16)
    assert secondary_structure(ca, chain, number).count("H") >= 14
    last = torch.arange(16) >= 12  # four residues are too few for a helix of their own
    for parts in ((chain + last, number), (chain, number + 50 * last)):
        assert secondary_structure(ca, *parts)[12:] == "LLLL"


def test_contents():
    assert contents("HHEL") == pytest.approx({"helix": 0.5, "strand": 0.25})
    assert contents("") == {"helix": 0, "strand": 0}
