"""Which residues of a file are not read as they are there, for whoever needs them exactly."""

from typing import NamedTuple

import numpy as np

from app.chem.residues import AATYPES_WITH_X, ONE_TO_THREE, PROTONATION_STATES, THREE_TO_INDEX

_SAME_TYPE = [*THREE_TO_INDEX, *PROTONATION_STATES]


class Loss(NamedTuple):
    """A residue of a protein chain that was left out, or that lost heavy atoms or its type."""

    chain: str  # as the protein names it, or the file where none of the chain is in the protein
    residue: str  # number and insertion code, as in "52A"
    name: str  # as the file has it: "SEP"
    read_as: str | None  # "SER"; None: left out, without N, CA and C that can be used
    atoms: int  # heavy atoms left out, of a residue that is read
    place: int  # index in the protein; of one left out that of the next that is there


def losses(
    protein: np.ndarray,
    keep: np.ndarray,
    name: np.ndarray,
    aatype: np.ndarray,
    left_out: np.ndarray,
    chain_names: np.ndarray,
    ids: np.ndarray,
) -> tuple[Loss, ...]:
    """In the file's order. All: [R], of the file's residues. protein: of a protein chain; keep: read, of those;
    left_out: heavy atoms that the layout has no place for; name, chain_names and ids as in `Loss`.
    """
    place = np.cumsum(keep) - keep
    lossy = protein & (~keep | (left_out > 0) | ~np.isin(name, _SAME_TYPE))
    return tuple(
        Loss(
            chain=str(chain_names[index]),
            residue=str(ids[index]),
            name=str(name[index]),
            read_as=ONE_TO_THREE[AATYPES_WITH_X[aatype[index]]] if keep[index] else None,
            atoms=int(left_out[index]),
            place=int(place[index]),
        )
        for index in np.flatnonzero(lossy)
    )
