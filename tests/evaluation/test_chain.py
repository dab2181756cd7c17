import torch

from app.evaluation.chain import ca_ca_validity, sequence_recovery


def chain(*steps: float) -> torch.Tensor:
    """CA atoms on a line with these distances between neighbours, [N, 3]."""
    return torch.tensor([[sum(steps[:k]), 0.0, 0.0] for k in range(len(steps) + 1)])


def test_validity_is_the_share_of_bonds_of_the_right_length():
    ca = chain(3.8, 3.5, 5.0, 1.0)
    bond = torch.tensor([True, True, True, True, False])
    assert ca_ca_validity(ca, bond).item() == 0.5
    assert ca_ca_validity(ca, bond, tolerance=0.1).item() == 0.25


def test_only_bonded_neighbours_are_judged():
    ca = chain(3.8, 20.0, 3.8)
    assert ca_ca_validity(ca, torch.tensor([True, False, True, False])).item() == 1.0
    assert ca_ca_validity(ca[:1], torch.tensor([False])).isnan(), "no bond, no share"


def test_recovery_counts_present_residues_only():
    designed, native = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 0, 4]])
    assert sequence_recovery(designed, native, torch.ones(1, 4)).item() == 0.75
    assert sequence_recovery(designed, native, torch.tensor([[1, 1, 1, 0]])).item() == torch.tensor(2 / 3).item()
    assert sequence_recovery(designed, native, torch.zeros(1, 4)).isnan()
