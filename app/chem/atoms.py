"""The atom37 layout: one fixed slot for each heavy-atom name that any of the twenty residues has (AlphaFold 2)."""

ATOM37 = (
    "N", "CA", "C", "CB", "O", "CG", "CG1", "CG2", "OG", "OG1", "SG", "CD", "CD1", "CD2", "ND1", "ND2", "OD1", "OD2",
    "SD", "CE", "CE1", "CE2", "CE3", "NE", "NE1", "NE2", "OE1", "OE2", "CH2", "NH1", "NH2", "OH", "CZ", "CZ2", "CZ3",
    "NZ", "OXT",
)  # fmt: skip

ATOM37_INDEX = {name: index for index, name in enumerate(ATOM37)}

NUM_ATOM37 = len(ATOM37)

N, CA, C, CB, O = range(5)  # noqa: E741 - the oxygen's name
"""Slots of the backbone atoms and CB."""
