import numpy as np
import torch

from app.evaluation.handedness import d_residues, helical_turns
from app.geometry import internal

MIRROR = np.array([1.0, 1.0, -1.0])


def helix(length: int = 12) -> np.ndarray:
    """[N, 5, 3]."""
    return internal.backbone(*(np.full(length, np.radians(angle)) for angle in (-57.8, -47.0, 180.0)))


def atom37(backbone: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    atoms, mask = torch.zeros(len(backbone), 37, 3), torch.zeros(len(backbone), 37, dtype=torch.bool)
    atoms[:, :5], mask[:, :5] = torch.from_numpy(backbone).float(), True
    return atoms, mask


def test_residues_are_l_and_those_of_a_mirror_image_d():
    assert not d_residues(*atom37(helix())).any()
    assert d_residues(*atom37(helix() * MIRROR)).all()


def test_by_hand():
    """CORN: seen from H, CO, R and N come clockwise in an L residue."""
    atoms, mask = atom37(np.zeros((2, 5, 3)))
    atoms[:, 2], atoms[:, 0] = torch.tensor([1.0, 0, 0]), torch.tensor([-0.5, 1.0, 0])  # C, N
    atoms[0, 3], atoms[1, 3] = torch.tensor([-0.5, -0.5, -1.0]), torch.tensor([-0.5, -0.5, 1.0])  # CB
    assert d_residues(atoms, mask).tolist() == [False, True]
    mask[1, 3] = False
    assert d_residues(atoms, mask).tolist() == [False, False], "without CB there is nothing to see"


def test_turns_of_helices_by_their_hand():
    ca, follows = helix()[:, 1], np.arange(12) < 11
    assert helical_turns(ca, follows) == (9, 0)
    assert helical_turns(ca * MIRROR, follows) == (0, 9)
    follows[5] = False
    assert helical_turns(ca, follows) == (6, 0), "those across a break are none"
    strand = internal.backbone(*(np.full(12, np.radians(angle)) for angle in (-120, 120, 180)))[:, 1]
    assert helical_turns(strand, np.arange(12) < 11) == (0, 0)
    assert helical_turns(ca[:3], follows[:3]) == (0, 0)
