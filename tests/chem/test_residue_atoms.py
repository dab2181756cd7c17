"""The table of atoms against the PDB's chemical components."""

import pytest
from biotite.structure.info import residue

from app.chem.atoms import ATOM37
from app.chem.residue_atoms import ATOM37_OF_AATYPE, RESIDUE_ATOMS
from app.chem.residues import AATYPES, ONE_TO_THREE


@pytest.mark.parametrize("aatype", range(20))
def test_atoms_are_those_of_the_chemical_component(aatype):
    component = residue(ONE_TO_THREE[AATYPES[aatype]])
    assert set(RESIDUE_ATOMS[aatype]) == set(component.atom_name[component.element != "H"].tolist())


def test_mask_names_the_same_atoms():
    for names, mask in zip(RESIDUE_ATOMS, ATOM37_OF_AATYPE, strict=True):
        assert {ATOM37[slot] for slot in mask.nonzero()[0]} == set(names)
