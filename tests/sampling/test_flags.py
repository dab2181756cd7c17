import numpy as np
import pytest
import torch

from app.geometry.internal import backbone
from app.sampling.designs import Design
from app.sampling.flags import breaks, degeneracy, explosion, flags, summary
from app.sampling.inputs import Task
from tests.sampling.made_inputs import atom37_of, partly_fixed

MIXED = torch.arange(12)
BONDED = torch.tensor([True] * 11 + [False])


def helix(length: int = 12) -> torch.Tensor:
    """An ideal alpha helix, [N, 37, 3]."""
    torsions = np.radians([[-57.0] * length, [-47.0] * length, [180.0] * length])
    return atom37_of(torch.from_numpy(backbone(*torsions)).float())


def of(atom37=None, aatypes=MIXED, task=Task.UNCONDITIONAL, design=None, bonded=BONDED):
    return flags(task, design or Design("x", 12, 0), helix() if atom37 is None else atom37, aatypes, bonded)


def test_nothing_is_wrong_with_a_helix_of_all_kinds_of_residues():
    assert of() == []


def test_a_sequence_of_mostly_one_residue_type_is_called_degenerate():
    assert degeneracy(torch.tensor([7] * 5 + [1, 2, 3, 4, 5])) == "degenerate sequence: 50% GLY"
    assert degeneracy(torch.tensor([7] * 4 + [1, 2, 3, 4, 5, 6])) is None  # 40 %, not above
    assert degeneracy(torch.tensor([7, 7, 7, 1])) is None  # three of four are no trend
    assert degeneracy(torch.tensor([])) is None


def test_of_partial_design_the_designed_residues_are_judged():
    design = partly_fixed(12, range(6))
    aatypes = torch.cat([torch.arange(6), torch.full((6,), 7)])
    assert of(aatypes=aatypes, design=design, task=Task.PARTIAL) == ["degenerate sequence: 100% GLY"]
    assert of(aatypes=aatypes.flip(0), design=design, task=Task.PARTIAL) == []
    assert of(aatypes=aatypes, design=design, task=Task.FORWARD_FOLDING) == []  # a given sequence is as it is


def test_residues_without_a_type():
    aatypes = MIXED.clone()
    aatypes[[2, 4]] = 20
    assert of(aatypes=aatypes) == ["X left: A3, A5"]
    aatypes[[6, 7]] = 20
    assert of(aatypes=aatypes) == ["X left: A3, A5, A7, ..."]
    assert of(aatypes=torch.full((12,), 20)) == ["X left: no residue has a type, there is no sequence"]
    assert of(aatypes=aatypes, task=Task.FORWARD_FOLDING) == []


def test_a_broken_chain():
    atom37 = helix()
    atom37[8:] += torch.tensor([0.0, 0.0, 4.0])
    assert of(atom37) == ["chain broken: 1 of 11 bonds, A8-A9"]
    assert of(atom37, task=Task.INVERSE_FOLDING) == []  # the structure was given
    assert of(atom37, task=Task.PARTIAL, design=partly_fixed(12, range(7, 12))) == []  # so were both residues
    assert of(atom37, task=Task.PARTIAL, design=partly_fixed(12, range(8, 12))) != []
    bonded = BONDED.clone()
    bonded[7] = False
    assert of(atom37, bonded=bonded) == []  # a gap in the numbering, or the end of a chain


def test_ca_too_far_apart_break_a_chain_though_c_and_n_are_close():
    atom37 = helix()
    atom37[6, 1] += 2 * torch.nn.functional.normalize(atom37[6, 1] - atom37[5, 1], dim=0)
    assert breaks(Design("x", 12, 0), atom37, BONDED, BONDED | True).startswith("chain broken: 1 of 11 bonds, A6-A7")


def test_an_exploded_structure():
    """An extended chain is none: 3.5 angstrom a residue is as wide as a chain can be drawn out."""
    rod = torch.arange(60)[:, None] * torch.tensor([3.5, 0.0, 0.0])
    assert explosion(rod[:12]) is None
    assert explosion(helix()[:, 1]) is None
    told = explosion(100 * torch.randn(60, 3))
    assert told.startswith("exploded: radius of gyration 1") and told.endswith("an unfolded chain has 22")
    assert explosion(torch.zeros(1, 3)) is None


def test_the_summary_counts_designs_by_kind():
    assert summary([[], []]) is None
    assert summary([["X left: A3"], [], ["X left: A1", "chain broken: 2"]]) == "flagged 2: X left 2, chain broken 1"


@pytest.mark.parametrize("length", [1, 2])
def test_tiny_designs(length):
    bonded = torch.zeros(length, dtype=torch.bool)
    assert of(helix(length), MIXED[:length], design=Design("x", length, 0), bonded=bonded) == []
