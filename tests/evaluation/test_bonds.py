"""Lengths and angles of the backbone against a chain built from ideal ones, and what is wrong with one that is not."""

import numpy as np
import pytest
import torch

from app.evaluation.bonds import ANGLES, AT_PEPTIDE_BOND, LENGTHS, deviations, share_within
from app.geometry import internal


def helix(length: int = 12) -> torch.Tensor:
    """N, CA, C of an ideal alpha helix, [N, 3, 3] angstrom."""
    torsions = (np.full(length, np.radians(angle)) for angle in (-57.8, -47.0, 180.0))
    return torch.from_numpy(internal.backbone(*torsions)[:, :3].copy()).float()


def bonded(length: int = 12) -> torch.Tensor:
    return torch.arange(length) < length - 1


def test_an_ideal_helix_is_ideal():
    off = deviations(helix(), bonded(), torch.ones(12))
    for name, values in off.items():
        known = values[:-1] if name in AT_PEPTIDE_BOND else values
        assert known.abs().max() < 0.02, name
        assert values[-1].isnan() == (name in AT_PEPTIDE_BOND)
    assert share_within(*off.values()) == 1


@pytest.mark.parametrize(("name", "atoms"), [("n_ca", (0, 1)), ("ca_c", (1, 2)), ("c_n", (2, 3))])
def test_a_length_is_off_by_as_many_deviations_as_it_was_stretched(name, atoms):
    backbone = helix()
    flat = backbone.view(-1, 3)
    first, second = (15 + atom for atom in atoms)  # of residue 5
    along = torch.nn.functional.normalize(flat[second] - flat[first], dim=-1)
    flat[second:] += 5 * LENGTHS[name].deviation * along
    off = deviations(backbone, bonded(), torch.ones(12))
    assert off[name][5].item() == pytest.approx(5, abs=0.02)
    assert share_within(off[name]).item() == pytest.approx(1 - 1 / (11 if name == "c_n" else 12))
    assert all(share_within(values) == 1 for other, values in off.items() if other != name)


def test_angles_are_those_of_their_atoms():
    right = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 1.0, 0]], [[1.0, 1.0, 0], [1.0, 2.0, 0], [5.0, 5, 5]]])
    off = deviations(right, torch.tensor([True, False]), torch.ones(2))
    for name in ANGLES:
        found = off[name][0] * ANGLES[name].deviation + ANGLES[name].mean
        assert found.item() == pytest.approx(torch.pi / 2, abs=1e-5), name


def test_what_is_absent_or_not_bonded_is_not_judged():
    backbone, mask, bond = helix(), torch.ones(12), bonded()
    backbone[4] = 0
    mask[4], bond[8] = 0, False
    backbone[9:] += 100
    off = deviations(backbone, bond, mask)
    assert {name: values.isnan().nonzero().flatten().tolist() for name, values in off.items()} == {
        name: [3, 4, 8, 11] if name in AT_PEPTIDE_BOND else [4] for name in off
    }
    assert share_within(*off.values()) == 1
    assert share_within(torch.full((2, 3), torch.nan)).isnan().tolist() == [True, True]


def test_batches_and_coordinates_that_are_no_numbers():
    both = torch.stack([helix(), helix()])
    both[1, 3, 1] = torch.nan
    off = deviations(both, bonded().expand(2, 12), torch.ones(2, 12))
    assert share_within(off["n_ca"]).tolist() == pytest.approx([1, 11 / 12])
    assert share_within(off["ca_c_n"], off["c_n_ca"]).tolist() == pytest.approx([1, 20 / 22])
