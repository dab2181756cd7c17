import pytest
import torch

from app.sampling.inputs import Task
from app.sampling.measures import ca_rmsd, degeneracy, measures, recovery
from tests.factories import random_rotations
from tests.sampling.test_designs import given


def test_recovery_leaves_unknown_residues_out():
    native = torch.tensor([0, 1, 20, 20, 4])
    assert recovery(torch.tensor([0, 2, 20, 3, 4]), native) == pytest.approx(2 / 3, abs=1e-4)
    assert recovery(torch.tensor([0, 1]), torch.tensor([20, 20])) is None


def test_rmsd_does_not_see_rigid_motions():
    ca = 10 * torch.randn(30, 3)
    moved = ca @ random_rotations(1)[0].T + 5
    assert ca_rmsd(moved, ca) == pytest.approx(0, abs=1e-3)
    assert ca_rmsd(moved + torch.randn(30, 3), ca) > 0.5


def test_a_sequence_of_mostly_one_residue_type_is_called_degenerate():
    assert degeneracy(torch.tensor([7] * 5 + [1, 2, 3, 4, 5])) == "degenerate sequence: 50% GLY"
    assert degeneracy(torch.tensor([7] * 4 + [1, 2, 3, 4, 5, 6])) is None


def test_each_task_has_its_own():
    atom37, poly = torch.randn(12, 37, 3), torch.zeros(12, dtype=torch.int64)
    assert set(measures(Task.UNCONDITIONAL, None, atom37, poly)) == {"warning"}
    assert set(measures(Task.INVERSE_FOLDING, given("x", 12), atom37, poly)) == {"warning", "recovery"}
    assert measures(Task.FORWARD_FOLDING, given("x", 12), atom37, poly) == {}  # a sequence without a structure
