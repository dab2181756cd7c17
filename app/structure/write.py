"""Structures and sequences to files: PDB with one or many models, mmCIF, FASTA. Files appear whole or not at all."""

import io
import os
import re
import string
import warnings
from collections.abc import Iterable, Sequence

import biotite.structure as struc
import numpy as np
from biotite.sequence.io.fasta import FastaFile
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import CIFCategory, CIFFile, set_structure

from app.errors import UserError
from app.structure.atom_array import atom_arrays
from app.structure.atomic import replacing
from app.structure.numbering import split_residue_ids
from app.structure.parse import stem_of
from app.types import Protein

CHAIN_LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits

_COORDINATE_RANGE = (-999.999, 9999.999)  # what "%8.3f" can hold
_RESIDUE_RANGE = (-999, 9999)  # what "%4d" can hold
_B_FACTOR_RANGE = (-99.99, 999.99)  # what "%6.2f" can hold
_LAST_SERIAL = 99_999  # what "%5d" can hold; they start over
_DIGITS = {"coord": 3, "b_factor": 2}  # of PDB files, so that mmCIF files say the same


def to_pdb(protein: Protein, path: str | os.PathLike) -> None:
    """Write a protein with its own residue numbers, and its own chain names where all have one letter.

    Raises: as `write_pdb`.
    """
    names = protein.chain_ids if all(len(name) == 1 for name in protein.chain_ids) else None
    numbers, codes = protein.res_idx, None
    if protein.residue_ids is not None:
        numbers, codes = split_residue_ids(protein.residue_ids)
    write_pdb(
        path,
        protein.atom37,
        protein.aatype,
        protein.chain_idx,
        numbers,
        b_factors=protein.b_factors,
        atom_mask=protein.atom_mask,
        chain_ids=names,
        ins_codes=codes,
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
    ins_codes=None,
) -> None:
    """Write one structure, or a trajectory as a multi-model file (MODEL 1, 2, ...). Arrays or tensors on any device.

    atom37: [N, 37, 3] or [T, N, 37, 3], angstrom. aatype: [N] or [T, N]; each model gets its own residue names.
    chain_idx, res_idx: [N]. b_factors: [N] or [T, N], clipped to what the format holds. atom_mask: [N, 37] or [T, N,
    37]; without it an atom at exactly (0, 0, 0) is absent, as in the model's output (a CA there is kept if its residue
    has other atoms). Glycine never gets a CB. A TER ends each chain. chain_ids[k - 1] names chain k; A, B, ... without
    it. ins_codes: [N] insertion codes, "" for none.

    Raises UserError, leaving no file: a coordinate that is not finite or too large for the PDB columns, a residue
    number outside -999..9999, more than 62 chains, no atom at all.
    """
    chain_ids = CHAIN_LETTERS if chain_ids is None else chain_ids
    arrays = atom_arrays(path, atom37, aatype, chain_idx, res_idx, b_factors, atom_mask, chain_ids, ins_codes)
    _refuse_beyond_columns(path, arrays)
    lines = []
    for model, array in enumerate(arrays, start=1):
        array.b_factor = array.b_factor.clip(*_B_FACTOR_RANGE)
        own = _pdb_lines(array)
        lines += own if len(arrays) == 1 else [f"MODEL     {model:4d}", *own, "ENDMDL"]
    with replacing(path) as aside:
        aside.write_text("\n".join([*lines, "END", ""]))


def write_mmcif(
    path: str | os.PathLike,
    atom37,
    aatype,
    chain_idx,
    res_idx,
    b_factors=None,
    atom_mask=None,
    chain_ids: Sequence[str] | None = None,
    ins_codes=None,
) -> None:
    """Write one structure as `write_pdb` does, to the same digits. Numbers and insertion codes are the author's; the
    label numbers count each chain's residues from 1. Each chain is an entity.

    atom37: [N, 37, 3]. Raises UserError, leaving no file: a coordinate that is not finite, no atom at all.
    """
    chain_ids = CHAIN_LETTERS if chain_ids is None else chain_ids
    arrays = atom_arrays(path, atom37, aatype, chain_idx, res_idx, b_factors, atom_mask, chain_ids, ins_codes)
    (array,) = arrays
    array.coord, array.b_factor = array.coord.round(_DIGITS["coord"]), array.b_factor.round(_DIGITS["b_factor"])
    file = CIFFile()
    set_structure(file, array, data_block=re.sub(r"[^A-Za-z0-9._-]", "_", stem_of(path)) or "design")
    file.block["atom_site"]["label_seq_id"] = array.place
    file.block["atom_site"]["label_entity_id"] = array.chain
    entities = np.unique(array.chain)
    file.block["entity"] = CIFCategory({"id": entities, "type": np.full(len(entities), "polymer")})
    with replacing(path) as aside, aside.open("w") as text:
        file.write(text)


def write_fasta(path: str | os.PathLike, records: Iterable[tuple[str, str]]) -> None:
    """Write (name, one-letter sequence) pairs in their order."""
    text = io.StringIO()
    FastaFile.write_iter(text, records)
    with replacing(path) as aside:
        aside.write_text(text.getvalue())


def _refuse_beyond_columns(path, arrays: Sequence[struc.AtomArray]) -> None:
    coordinates, numbers = (np.concatenate([getattr(array, name) for array in arrays]) for name in ("coord", "res_id"))
    low, high = _COORDINATE_RANGE
    if coordinates.min() < low or coordinates.max() > high:
        raise UserError(
            f"{path}: coordinates from {coordinates.min():.0f} to {coordinates.max():.0f} angstrom do not fit the PDB "
            f"format ({low:.0f} to {high:.0f}); centre the structure"
        )
    low, high = _RESIDUE_RANGE
    if numbers.min() < low or numbers.max() > high:
        raise UserError(
            f"{path}: residue numbers {numbers.min()} to {numbers.max()} do not fit the PDB format ({low} to {high}); "
            "renumber the residues"
        )


def _pdb_lines(array: struc.AtomArray) -> list[str]:
    last = np.append(np.diff(array.chain) != 0, True)  # of its chain
    serial = np.arange(1, len(last) + 1) + np.cumsum(last) - last  # a TER has a number as well
    array.set_annotation("atom_id", serial)
    file = PDBFile()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # atom serial numbers start over after 99,999, as is the custom
        file.set_structure(array)
    lines = []
    for line, number, ends in zip(file.lines, serial.tolist(), last.tolist(), strict=True):
        lines.append(line)
        if ends:
            lines.append(f"TER   {number % _LAST_SERIAL + 1:5d}      {line[17:27]}".ljust(80))
    return lines
