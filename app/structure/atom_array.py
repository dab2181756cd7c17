"""Residues in the atom37 layout to biotite's tables of atoms, as the writers of all formats need them."""

from collections.abc import Sequence

import biotite.structure as struc
import numpy as np

from app.chem import atoms
from app.chem.residues import AATYPES_WITH_X, ONE_TO_THREE
from app.errors import UserError

_GLYCINE = AATYPES_WITH_X.index("G")
_RESIDUE_NAMES = np.array([ONE_TO_THREE[letter] for letter in AATYPES_WITH_X])
_ATOM_NAMES = np.array(atoms.ATOM37)
_ELEMENTS = np.array([name[0] for name in atoms.ATOM37])
_FILE_ORDER = np.array([atoms.N, atoms.CA, atoms.C, atoms.O, atoms.CB, *range(5, atoms.NUM_ATOM37)])


def atom_arrays(
    path, atom37, aatype, chain_idx, res_idx, b_factors, atom_mask, chain_ids: Sequence[str], ins_codes=None
) -> list[struc.AtomArray]:
    """A table of atoms for each model, with `b_factor`, `occupancy`, `chain`, which is the chain's index, and `place`,
    the residue's in its chain from 1 on.

    Arguments as of `app.structure.write.write_pdb`; path names the file in errors. Raises UserError: a coordinate that
    is not finite, a chain without a name, no atom at all.
    """
    atom37 = _array(atom37).astype(np.float32)
    atom37 = atom37[None] if atom37.ndim == 3 else atom37
    models, length = atom37.shape[:2]
    if atom37.shape != (models, length, atoms.NUM_ATOM37, 3):
        raise ValueError(f"atom37 must be [N, 37, 3] or [T, N, 37, 3], not {atom37.shape}")
    aatype = np.broadcast_to(_array(aatype).astype(int), (models, length))
    b_factors = np.zeros(length) if b_factors is None else np.nan_to_num(_array(b_factors))
    b_factors = np.broadcast_to(b_factors, (models, length))
    present = _present(atom37, atom_mask) & ~_glycine_cb(aatype)
    if not present.any():
        raise UserError(f"{path}: there is no atom to write")
    if not np.isfinite(atom37[present]).all():
        raise UserError(f"{path}: the structure has coordinates that are not finite, so it was not written")
    chain_idx = _array(chain_idx).astype(int)
    if chain_idx.min() < 1 or chain_idx.max() > len(chain_ids):
        raise UserError(f"{path}: chain indices must lie in 1..{len(chain_ids)} to get a chain name")
    residues = {
        "chain_id": np.array(list(chain_ids))[chain_idx - 1],
        "res_id": _array(res_idx).astype(int),
        "ins_code": np.full(length, "") if ins_codes is None else np.asarray(ins_codes),
        "chain": chain_idx,
        "place": _places(chain_idx),
    }
    return [
        _table(atom37[model], present[model], residues | {"b_factor": b_factors[model]}, aatype[model])
        for model in range(models)
    ]


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _present(atom37: np.ndarray, atom_mask) -> np.ndarray:
    if atom_mask is not None:
        return np.broadcast_to(_array(atom_mask).astype(bool), atom37.shape[:-1])
    present = (atom37 != 0).any(-1)
    # centring can put a CA on the origin
    present[..., atoms.CA] |= present.any(-1)
    return present


def _glycine_cb(aatype: np.ndarray) -> np.ndarray:
    """[T, N, 37] bool, true at the CB slot of glycines."""
    return (aatype == _GLYCINE)[..., None] & (np.arange(atoms.NUM_ATOM37) == atoms.CB)


def _places(chain_idx: np.ndarray) -> np.ndarray:
    """[N] 1, 2, ... within each chain."""
    place = np.zeros(len(chain_idx), dtype=int)
    for chain in np.unique(chain_idx):
        own = chain_idx == chain
        place[own] = np.arange(1, own.sum() + 1)
    return place


def _table(atom37: np.ndarray, present: np.ndarray, residues: dict[str, np.ndarray], aatype: np.ndarray):
    """atom37: [N, 37, 3]; present: [N, 37]; residues: annotations [N] that all atoms of a residue share."""
    residue, column = np.nonzero(present[:, _FILE_ORDER])
    slot = _FILE_ORDER[column]
    array = struc.AtomArray(len(residue))
    array.coord = atom37[residue, slot]
    array.res_name = _RESIDUE_NAMES[aatype[residue]]
    array.atom_name = _ATOM_NAMES[slot]
    array.element = _ELEMENTS[slot]
    array.set_annotation("occupancy", np.ones(len(residue)))
    for name, values in residues.items():
        array.set_annotation(name, values[residue])
    return array
