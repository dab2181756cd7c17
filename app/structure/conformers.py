"""Atoms to residues, and one conformer of each residue."""

import biotite.structure as struc
import numpy as np

_BACKBONE = {"N", "CA", "C"}


def choose_conformers(atoms: struc.AtomArray, chain: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group atoms into residues and choose one alternate location for the whole of each residue.

    atoms: with altloc_id, occupancy and seq_pos. chain: [A] int.
    Returns residue [A] int (0..R-1, chain after chain, in the file's order within a chain), alternate [R] bool (the
    residue has more than one conformer), and kept [A] bool (the atom belongs to the chosen conformer).
    """
    residue = _residues(atoms, chain)
    count = int(residue.max()) + 1
    kept = np.ones(len(atoms), dtype=bool)
    alternate = np.zeros(count, dtype=bool)
    labelled = atoms.altloc_id != ""
    members = np.split(np.argsort(residue, kind="stable"), np.cumsum(np.bincount(residue))[:-1])
    for index in np.unique(residue[labelled]):
        own = members[index]
        chosen = _best_conformer(atoms, own)
        kept[own] = np.isin(atoms.altloc_id[own], ("", chosen))
        name = atoms.res_name[own[kept[own]][0]]
        kept[own] &= atoms.res_name[own] == name
        alternate[index] = len(np.unique(atoms.altloc_id[own][labelled[own]])) > 1
    return residue, alternate, kept


def _residues(atoms: struc.AtomArray, chain: np.ndarray) -> np.ndarray:
    """Residue of each atom. Runs of one chain, number, insertion code and name are residues; so are, as one, runs of
    alternate locations with different names at one number (microheterogeneity) or written apart from each other.
    """
    columns = [chain, atoms.res_id, atoms.ins_code, atoms.seq_pos, atoms.res_name]
    starts = np.append(True, np.any([column[1:] != column[:-1] for column in columns], axis=0))
    run = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    only_labelled = np.logical_and.reduceat(atoms.altloc_id != "", first)
    keys = list(zip(*(column[first].tolist() for column in columns[:-1]), strict=True))

    found: dict[tuple, int] = {}
    residue_of_run = np.empty(len(first), dtype=np.int64)
    chain_of_residue: list[int] = []
    for index, key in enumerate(keys):
        if not (only_labelled[index] and key in found):
            found[key] = len(chain_of_residue)
            chain_of_residue.append(key[0])
        residue_of_run[index] = found[key]
    rank = np.empty(len(chain_of_residue), dtype=np.int64)
    rank[np.argsort(chain_of_residue, kind="stable")] = np.arange(len(rank))
    return rank[residue_of_run][run]


def _best_conformer(atoms: struc.AtomArray, own: np.ndarray) -> str:
    """The alternate location with a whole backbone, if there is one, then of the highest mean occupancy, then with the
    most atoms, then the first.
    """
    altloc, names = atoms.altloc_id[own], atoms.atom_name[own]

    def merit(label: str) -> tuple:
        in_label = altloc == label
        whole = set(names[in_label | (altloc == "")]) >= _BACKBONE
        return whole, round(float(atoms.occupancy[own][in_label].mean()), 6), int(in_label.sum())

    return max(dict.fromkeys(altloc[altloc != ""].tolist()), key=merit)
