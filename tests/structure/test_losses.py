"""What reading leaves out or changes, residue by residue. How a run tells of it: tests/sampling/test_fix.py."""

import numpy as np

from app.chem.residues import index_of
from app.structure.losses import losses


def test_residues_that_are_not_as_the_file_has_them():
    names = np.array(["ALA", "SEP", "HIE", "MSE", "GLY", "DAL", "UNK", "HOH"])
    found = losses(
        protein=names != "HOH",
        keep=~np.isin(names, ["GLY", "HOH"]),
        name=names,
        aatype=np.array([index_of(name) for name in names]),
        left_out=np.array([0, 4, 0, 0, 0, 0, 2, 1]),
        chain_names=np.array(list("AAAABBBB")),
        ids=np.array(["1", "2", "2A", "3", "1", "2", "3", "4"]),
    )
    assert found == (
        ("A", "2", "SEP", "SER", 4, 1),
        ("A", "3", "MSE", "MET", 0, 3),  # its selenium is not the sulphur that it is read as
        ("B", "1", "GLY", None, 0, 4),  # left out: the next that is there is fifth
        ("B", "2", "DAL", "UNK", 0, 4),
        ("B", "3", "UNK", "UNK", 2, 5),
    )
