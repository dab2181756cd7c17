"""Structures and sequences to files: PDB with one or many models, FASTA. Files appear whole or not at all."""

import io
import os
import string
import warnings
from collections.abc import Iterable, Sequence

import biotite.structure as struc
import numpy as np
from biotite.sequence.io.fasta import FastaFile
from biotite.structure.io.pdb import PDBFile

from app.chem import atoms
from app.chem.residues import AATYPES_WITH_X, ONE_TO_THREE
from app.errors import UserError
from app.structure.atomic import replacing
from app.types import Protein

CHAIN_LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits

_GLYCINE = AATYPES_WITH_X.index("G")
_RESIDUE_NAMES = np.array([ONE_TO_THREE[letter] for letter in AATYPES_WITH_X])
_ATOM_NAMES = np.array(atoms.ATOM37)
_ELEMENTS = np.array([name[0] for name in atoms.ATOM37])
_FILE_ORDER = np.array([atoms.N, atoms.CA, atoms.C, atoms.O, atoms.CB, *range(5, atoms.NUM_ATOM37)])

_COORDINATE_RANGE = (-999.999, 9999.999)  # what "%8.3f" can hold
_RESIDUE_RANGE = (-999, 9999)  # what "%4d" can hold
_B_FACTOR_RANGE = (-99.99, 999.99)  # what "%6.2f" can hold


def to_pdb(protein: Protein, path: str | os.PathLike) -> None:
    """Write a protein with its own chain names where the format can hold them (one character each).

    Raises: as `write_pdb`.
    """
    names = protein.chain_ids if all(len(name) == 1 for name in protein.chain_ids) else None
    write_pdb(
        path,
        protein.atom37,
        protein.aatype,
        protein.chain_idx,
        protein.res_idx,
        b_factors=protein.b_factors,
        atom_mask=protein.atom_mask,
        chain_ids=names,
    )


def write_pdb(
    path: str | os.PathLike,
    atom37,
    aatype,
    chain_idx,
    res_idx,
    b_factors=None,
    atom_mask=None,
    chain_ids: Sequence[str] | None = None,
) -> None:
    """Write one structure, or a trajectory as a multi-model file (MODEL 1, 2, ...). Arrays or tensors on any device.

    atom37: [N, 37, 3] or [T, N, 37, 3], angstrom. aatype: [N] or [T, N]; each model gets its own residue names.
    chain_idx, res_idx: [N]. b_factors: [N] or [T, N], clipped to what the format holds. atom_mask: [N, 37] or
    [T, N, 37]; without it an atom at exactly (0, 0, 0) is absent, as in the model's output (a CA there is kept if its
    residue has other atoms). Glycine never gets a CB. chain_ids[k - 1] names chain k; A, B, ... without it.

    Raises UserError, leaving no file: a coordinate that is not finite or too large for the PDB columns, a residue
    number outside -999..9999, more than 62 chains, no atom at all.
    """
    atom37 = _array(atom37).astype(np.float32)
    atom37 = atom37[None] if atom37.ndim == 3 else atom37
    models, length = atom37.shape[:2]
    if atom37.shape != (models, length, atoms.NUM_ATOM37, 3):
        raise ValueError(f"atom37 must be [N, 37, 3] or [T, N, 37, 3], not {atom37.shape}")
    aatype = np.broadcast_to(_array(aatype).astype(int), (models, length))
    b_factors = np.broadcast_to(_b_factors(b_factors, length), (models, length))
    present = _present(atom37, atom_mask) & ~_glycine_cb(aatype)
    _check(path, atom37[present], _array(res_idx), present)

    chain_names = _chain_names(path, _array(chain_idx).astype(int), chain_ids)
    lines = []
    for model in range(models):
        model_lines = _model_lines(
            atom37[model], present[model], aatype[model], chain_names, _array(res_idx).astype(int), b_factors[model]
        )
        lines += model_lines if models == 1 else [f"MODEL     {model + 1:4d}", *model_lines, "ENDMDL"]
    with replacing(path) as aside:
        aside.write_text("\n".join([*lines, "END", ""]))


def write_fasta(path: str | os.PathLike, records: Iterable[tuple[str, str]]) -> None:
    """Write (name, one-letter sequence) pairs in their order."""
    text = io.StringIO()
    FastaFile.write_iter(text, records)
    with replacing(path) as aside:
        aside.write_text(text.getvalue())


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _b_factors(values, length: int) -> np.ndarray:
    if values is None:
        return np.zeros(length)
    return np.nan_to_num(_array(values)).clip(*_B_FACTOR_RANGE)


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


def _check(path, coordinates: np.ndarray, res_idx: np.ndarray, present: np.ndarray) -> None:
    if not present.any():
        raise UserError(f"{path}: there is no atom to write")
    low, high = _COORDINATE_RANGE
    if not np.isfinite(coordinates).all():
        raise UserError(f"{path}: the structure has coordinates that are not finite, so it was not written")
    if coordinates.min() < low or coordinates.max() > high:
        raise UserError(
            f"{path}: coordinates from {coordinates.min():.0f} to {coordinates.max():.0f} angstrom do not fit the PDB "
            f"format ({low:.0f} to {high:.0f}); centre the structure"
        )
    low, high = _RESIDUE_RANGE
    if res_idx.min() < low or res_idx.max() > high:
        raise UserError(
            f"{path}: residue numbers {res_idx.min()} to {res_idx.max()} do not fit the PDB format ({low} to {high}); "
            "renumber the residues"
        )


def _chain_names(path, chain_idx: np.ndarray, chain_ids: Sequence[str] | None) -> np.ndarray:
    names = CHAIN_LETTERS if chain_ids is None else chain_ids
    if chain_idx.min() < 1 or chain_idx.max() > len(names):
        raise UserError(f"{path}: chain indices must lie in 1..{len(names)} to get a one-letter chain name")
    return np.array(list(names))[chain_idx - 1]


def _model_lines(atom37, present, aatype, chain_names, res_idx, b_factors) -> list[str]:
    present = present[:, _FILE_ORDER]
    residue, column = np.nonzero(present)
    slot = _FILE_ORDER[column]
    array = struc.AtomArray(len(residue))
    array.coord = atom37[residue, slot]
    array.chain_id = chain_names[residue]
    array.res_id = res_idx[residue]
    array.res_name = _RESIDUE_NAMES[aatype[residue]]
    array.atom_name = _ATOM_NAMES[slot]
    array.element = _ELEMENTS[slot]
    array.set_annotation("b_factor", b_factors[residue])
    file = PDBFile()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # atom serial numbers start over after 99,999, as is the custom
        file.set_structure(array)
    return file.lines
