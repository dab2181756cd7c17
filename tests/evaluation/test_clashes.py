import numpy as np
import pytest
import torch

from app.data.demo_dataset import DemoDataset
from app.evaluation.clashes import OVERLAP, RADII, clashes
from app.geometry import internal
from tests.data.made_demo import SETS
from tests.factories import random_rotations


def atom37(phi: float, psi: float, length: int = 20) -> torch.Tensor:
    """Of a chain with these torsions all along, degrees: [N, 37, 3]."""
    torsions = (np.full(length, np.radians(angle)) for angle in (phi, psi, 180.0))
    atoms = torch.zeros(length, 37, 3)
    atoms[:, :5] = torch.from_numpy(internal.backbone(*torsions)).float() + 50
    return atoms


def one_chain(length: int) -> torch.Tensor:
    return torch.ones(length, dtype=torch.int64)


@pytest.mark.parametrize("torsions", [(-57.8, -47.0), (-120.0, 120.0), (-65.0, 145.0)])
def test_helices_and_strands_do_not_clash(torsions):
    assert clashes(atom37(*torsions), torch.ones(20), one_chain(20)) == 0


def test_a_squashed_helix_does():
    squashed = atom37(-57.8, -47.0) * torch.tensor([1.0, 1.0, 0.2])
    assert clashes(squashed, torch.ones(20), one_chain(20)) > 100


def test_pairs_are_counted_once_and_by_their_radii():
    atoms = torch.zeros(5, 37, 3)
    atoms[:, 1] = 100.0 * torch.arange(1, 6)[:, None]  # CA far apart
    limit = 2 * RADII[1] - OVERLAP
    atoms[4, 1] = atoms[0, 1] + torch.tensor([limit - 0.01, 0, 0])
    assert clashes(atoms, torch.ones(5), one_chain(5)).item() == 20
    atoms[4, 1, 0] += 0.02
    assert clashes(atoms, torch.ones(5), one_chain(5)) == 0
    atoms[4, 1], atoms[1, 1] = 500.0, atoms[0, 1] + 0.1
    assert clashes(atoms, torch.ones(5), one_chain(5)) == 0, "neighbours are held together"
    assert clashes(atoms, torch.ones(5), torch.tensor([1, 2, 2, 2, 2])).item() == 20, "those of two chains are not"
    assert clashes(atoms, torch.tensor([0, 1, 1, 1, 1.0]), torch.tensor([1, 2, 2, 2, 2])) == 0


def test_examples_of_a_batch_are_on_their_own_and_moving_changes_nothing():
    good, bad = atom37(-57.8, -47.0), atom37(-57.8, -47.0) * torch.tensor([1.0, 1.0, 0.3])
    mask, chain = torch.ones(2, 20), one_chain(20).expand(2, 20)
    found = clashes(torch.stack([good, bad]), mask, chain)
    assert found[0] == 0 < found[1]
    turned = torch.where(bad != 0, bad @ random_rotations(seed=3).T + 7, 0.0)
    torch.testing.assert_close(clashes(turned, mask[0], chain[0]), found[1])


def test_the_demo_chains_have_none():
    data: DemoDataset = SETS["held_out"]
    proteins = [data.protein(index) for index in range(8)]
    assert all(clashes(torch.from_numpy(p.atom37), torch.ones(len(p)), one_chain(len(p))) == 0 for p in proteins)
