"""What a record says beside a design: against values computed by hand and by biotite."""

import biotite.structure as struc
import numpy as np
import pytest
import torch

from app.geometry.internal import backbone
from app.sampling.designs import Design
from app.sampling.given import Kept
from app.sampling.inputs import Task
from app.sampling.measures import ca_rmsd, junctions, measures, recovery
from tests.factories import random_rotations
from tests.sampling.made_inputs import atom37_of, partly_fixed
from tests.sampling.test_designs import given

ALL_BONDED = torch.tensor([True] * 11 + [False])


def test_recovery_leaves_unknown_residues_out():
    native = torch.tensor([0, 1, 20, 20, 4])
    assert recovery(torch.tensor([0, 2, 20, 3, 4]), native) == pytest.approx(2 / 3, abs=1e-4)
    assert recovery(torch.tensor([0, 1]), torch.tensor([20, 20])) is None


def test_rmsd_does_not_see_rigid_motions():
    ca = 10 * torch.randn(30, 3)
    moved = ca @ random_rotations(1)[0].T + 5
    assert ca_rmsd(moved, ca) == pytest.approx(0, abs=1e-3)
    assert ca_rmsd(moved + torch.randn(30, 3), ca) > 0.5


def test_each_task_has_its_own():
    atom37, poly = torch.randn(12, 37, 3), torch.zeros(12, dtype=torch.int64)

    def of(task, design):
        return set(measures(task, design, atom37, poly, ALL_BONDED))

    assert of(Task.UNCONDITIONAL, Design("x", 12, 0)) == set()
    assert of(Task.INVERSE_FOLDING, Design("x", 12, 0, given("x", 12))) == {"recovery"}
    assert of(Task.FORWARD_FOLDING, Design("x", 12, 0, given("x", 12))) == set()  # a sequence without a structure
    assert of(Task.PARTIAL, partly_fixed(12, range(3, 6))) == {"junctions"}
    assert of(Task.INVERSE_FOLDING, partly_fixed(12, range(3, 6))) == {"recovery", "junctions"}


def test_recovery_of_partial_design_is_of_what_was_designed():
    design = partly_fixed(12, range(9))
    aatypes = design.given.aatypes.clone()
    aatypes[9] = (aatypes[9] + 1) % 20
    found = measures(Task.INVERSE_FOLDING, design, torch.randn(12, 37, 3), aatypes, ALL_BONDED)
    assert found["recovery"] == pytest.approx(2 / 3, abs=1e-4)


def test_junctions_of_an_ideal_chain_are_ideal():
    torsions = np.radians(np.full((3, 12), (-60.0)))
    torsions[2] = np.pi
    atom37 = atom37_of(torch.from_numpy(backbone(*torsions)).float())
    found = junctions(partly_fixed(12, range(3, 7)), atom37, ALL_BONDED)
    assert [one["between"] for one in found] == [["A3", "A4"], ["A7", "A8"]]
    for one in found:
        assert (one["c_n"], one["ca_c_n"], one["c_n_ca"]) == (1.329, 116.2, 121.7)  # Engh & Huber 1991


def test_junctions_agree_with_biotite():
    atom37 = torch.randn(12, 37, 3)
    (found,) = junctions(partly_fixed(12, range(5)), atom37, ALL_BONDED)
    assert found["between"] == ["A5", "A6"]
    (_, ca, c), (n, next_ca, _) = atom37[4, :3].numpy(), atom37[5, :3].numpy()
    assert found["c_n"] == pytest.approx(struc.distance(c, n), abs=1e-3)
    assert found["ca_c_n"] == pytest.approx(np.degrees(struc.angle(ca, c, n)), abs=1e-2)
    assert found["c_n_ca"] == pytest.approx(np.degrees(struc.angle(c, n, next_ca)), abs=1e-2)


def test_a_gap_is_no_junction():
    bonded = ALL_BONDED.clone()
    bonded[4] = False
    assert junctions(partly_fixed(12, range(5)), torch.randn(12, 37, 3), bonded) == []


def test_kept_residues_are_fixed_and_nothing_else():
    design = partly_fixed(12, [2, 5])
    assert isinstance(design.given.kept, Kept)
    assert design.fixed.nonzero()[:, 0].tolist() == [2, 5]
    assert design.designs_sequence(Task.PARTIAL).equal(~design.fixed)
    assert not design.designs_sequence(Task.FORWARD_FOLDING).any()
    assert not design.designs_structure(Task.INVERSE_FOLDING).any()
