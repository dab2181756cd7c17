"""Designs against references: values by hand and by biotite, and which residues stand for which."""

import dataclasses

import biotite.structure as struc
import numpy as np
import pytest

from app.chem.residues import UNKNOWN
from app.errors import UserError
from app.evaluation.against import compared, corresponding
from app.structure.read import read_structure, split_chains
from app.types import Protein
from tests.evaluation.made_designs import demo
from tests.factories import random_rotations


def moved(protein: Protein, atom37: np.ndarray, **more) -> Protein:
    return dataclasses.replace(protein, atom37=atom37.astype(np.float32), **more)


def part(protein: Protein, keep: np.ndarray) -> Protein:
    arrays = ("atom37", "atom_mask", "aatype", "res_idx", "chain_idx", "b_factors")
    return dataclasses.replace(protein, **{name: getattr(protein, name)[keep] for name in arrays})


def test_itself_turned_around():
    native = demo(0)
    found = compared(moved(native, native.atom37 @ random_rotations(seed=2).numpy().T + 30), native, "native.pdb")
    assert found["reference"] == "native.pdb" and found["recovery"] == 1
    assert found["ca_rmsd"] == pytest.approx(0, abs=1e-4) and found["backbone_rmsd"] == pytest.approx(0, abs=1e-4)
    assert found["tm_score"] == pytest.approx(1, abs=1e-4) and found["lddt"] == 1


def test_a_mirror_image_is_another_structure_with_the_same_distances():
    native = demo(0)
    found = compared(moved(native, native.atom37 * [1, 1, -1]), native, "")
    assert found["lddt"] == 1 and found["ca_rmsd"] > 3 and found["tm_score"] < 0.7


def test_rmsd_by_hand():
    """Along a line, every second CA off by 1 angstrom across it: after superposition each by half."""
    native = demo(0)
    atoms = np.zeros_like(native.atom37)
    atoms[:, 1, 0] = 3.8 * np.arange(len(native))
    zigzag = atoms.copy()
    zigzag[::2, 1, 1] += 1
    found = compared(moved(native, zigzag), moved(native, atoms), "")
    assert found["ca_rmsd"] == pytest.approx(0.5, abs=0.01)


def test_values_are_those_of_biotite(shared):
    chains = split_chains(read_structure(shared / "structures/1tim.pdb.gz"))
    other = split_chains(read_structure(shared / "structures/8tim.pdb.gz"))[0]
    found = compared(chains[0], other, "")
    ca, native = chains[0].atom37[:, 1], other.atom37[:, 1]
    fitted, _ = struc.superimpose(native, ca)
    assert found["ca_rmsd"] == pytest.approx(float(struc.rmsd(native, fitted)), abs=1e-3)
    backbone, target = (one.atom37[:, :3].reshape(-1, 3) for one in (chains[0], other))
    assert found["backbone_rmsd"] == pytest.approx(
        float(struc.rmsd(target, struc.superimpose(target, backbone)[0])), abs=1e-3
    )
    array = struc.AtomArray(len(native))
    array.coord, array.res_id = native, np.arange(len(native))
    assert found["lddt"] == pytest.approx(float(struc.lddt(array, ca)), abs=1e-5)
    assert found["tm_score"] == pytest.approx(0.980, abs=0.002), "TM-align (tmtools 0.3.0)"
    assert found["recovery"] == pytest.approx((chains[0].aatype == other.aatype).mean(), abs=1e-6)


def test_recovery_leaves_unknown_natives_out_and_needs_a_sequence():
    native = demo(0)
    design = dataclasses.replace(native, aatype=native.aatype.copy())
    design.aatype[:10] = (design.aatype[:10] + 1) % 20
    with_x = dataclasses.replace(native, aatype=np.where(np.arange(len(native)) < 5, UNKNOWN, native.aatype))
    assert compared(design, with_x, "")["recovery"] == pytest.approx((len(native) - 10) / (len(native) - 5), abs=1e-6)
    nothing = dataclasses.replace(native, aatype=np.full(len(native), UNKNOWN))
    assert compared(nothing, native, "")["recovery"] == "skipped: no sequence"


def test_residues_that_are_missing_on_either_side_are_found_by_sequence():
    native = demo(1)
    keep = np.ones(len(native), bool)
    keep[10:16] = False
    own, other = corresponding(part(native, keep), native)
    assert len(own) == keep.sum() and (other == np.flatnonzero(keep)).mean() > 0.9
    lacking = compared(part(native, keep), native, "")
    assert lacking["tm_score"] == pytest.approx(keep.mean(), abs=0.02), "those that the design lacks count 0"
    assert lacking["lddt"] < 0.95 and lacking["ca_rmsd"] < 1
    longer = compared(native, part(native, keep), "")
    assert longer["tm_score"] > 0.97


def test_other_proteins_of_another_length_do_not_correspond():
    with pytest.raises(UserError, match="do not correspond"):
        compared(demo(0), part(demo(3), np.arange(len(demo(3))) < 40), "")
