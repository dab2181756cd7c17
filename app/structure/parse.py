"""PDB and mmCIF files to a flat table of atoms: one model, every conformer, nothing interpreted yet."""

import gzip
import io
import os
import warnings
import zlib
from pathlib import Path

import biotite.structure as struc
import numpy as np
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import CIFFile

from app.errors import UserError
from app.signals import heeding_ctrl_c

FORMATS = {".pdb": "pdb", ".ent": "pdb", ".cif": "mmcif", ".mmcif": "mmcif"}
SUFFIXES = ", ".join(FORMATS)

_GZIP_MAGIC = b"\x1f\x8b"
_MODEL_MARKS = ("MODEL", "ENDMDL", "END")
_ATOM_RECORDS = ("ATOM", "HETATM")
_END_OF_COORDINATES = 54  # last column of z in a PDB atom line


def format_of(path: str | os.PathLike) -> str | None:
    """ "pdb" or "mmcif" by the file's suffix, with or without .gz; None for any other."""
    return FORMATS.get(_split(path)[1])


def stem_of(path: str | os.PathLike) -> str:
    """File name without .gz and without the format's suffix: the name of the entry."""
    return _split(path)[0]


def read_bytes(path: str | os.PathLike) -> bytes:
    """The file's content as it lies on disk. UserError: missing, not a file, not readable."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, not a structure file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def parse(content: bytes, path: str | os.PathLike, model: int = 1) -> tuple[struc.AtomArray, int]:
    """Atoms of one model (1 = the first in the file, whatever its number) and the number of models in the file.

    content: the file, gzipped or not. path: names the file in errors and tells its format.
    The array has, beside biotite's own annotations (chain names and numbers are the author's): occupancy, b_factor,
    altloc_id ("" where there is one conformer), segment (int; differs between molecules that share a chain name) and
    seq_pos (int; mmCIF's label_seq_id, -1 outside polymers and in PDB files). Coordinates may hold NaN.

    Raises UserError: unknown suffix, damaged gzip, text that does not parse, no such model, no atoms.
    """
    file_format = format_of(path)
    if file_format is None:
        raise UserError(f"{path}: not a structure file by its suffix; Trunkline reads {SUFFIXES}, each also with .gz")
    text = _text(content, path)
    if text.lstrip().startswith("data_"):
        file_format = "mmcif"
    parser = _parse_mmcif if file_format == "mmcif" else _parse_pdb
    try:
        with heeding_ctrl_c(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # elements guessed from atom names: unused here
            atoms, models = parser(text, model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # biotite raises whatever its parsing stumbles on
        raise UserError(
            f"{path}: not a readable {file_format} file ({_one_line(error)}); it may be truncated, get it again"
        ) from error
    return atoms, models


def _split(path: str | os.PathLike) -> tuple[str, str]:
    name = os.path.basename(path)
    if name.lower().endswith(".gz"):
        name = name[: -len(".gz")]
    stem, suffix = os.path.splitext(name)
    return stem, suffix.lower()


def _text(content: bytes, path) -> str:
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error):
            raise UserError(f"{path}: the gzip data is truncated or damaged; get the file again") from None
    text = content.decode("utf-8", errors="replace")
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _pick_model(models: int, model: int) -> None:
    if models == 0:
        raise UserError("the file holds no atoms")
    if not 1 <= model <= models:
        raise UserError(f"the file has {models} models, there is no model {model}")


def _parse_pdb(text: str, model: int) -> tuple[struc.AtomArray, int]:
    models = _pdb_models(text)
    _pick_model(len(models), model)
    lines, ter_count = zip(*models[model - 1], strict=True)
    atoms = PDBFile.read(io.StringIO("\n".join(map(_mended, lines)))).get_structure(
        model=1, altloc="all", extra_fields=["b_factor", "occupancy"]
    )
    atoms.altloc_id = np.char.strip(atoms.altloc_id)
    atoms.set_annotation("segment", _pdb_segments(atoms, np.array(ter_count)))
    atoms.set_annotation("seq_pos", np.full(len(atoms), -1))
    return atoms, len(models)


def _pdb_models(text: str) -> list[list[tuple[str, int]]]:
    """Atom lines of each model, each with the number of TER records before it.

    A bare END divides models too: some programs write ensembles so.
    """
    models = [[]]
    ter_count = 0
    for line in text.splitlines():
        record = line[:6].rstrip()
        if record in _ATOM_RECORDS:
            models[-1].append((line, ter_count))
        elif record.startswith("TER"):
            ter_count += 1
        elif record in _MODEL_MARKS and models[-1]:
            models.append([])
    return [lines for lines in models if lines]


def _mended(line: str) -> str:
    """An atom line with what programs leave out filled in: occupancy 1, B-factor 0, NaN for overflowed coordinates."""
    line = line.rstrip()
    if len(line) < _END_OF_COORDINATES:
        raise UserError(f"an atom line ends within its coordinates ({line[:26].strip()!r}); the file is truncated")
    line = line.ljust(80)
    xyz = "".join("     nan" if "*" in field else field for field in (line[30:38], line[38:46], line[46:54]))
    occupancy = line[54:60] if _is_number(line[54:60]) else "  1.00"
    b_factor = line[60:66] if _is_number(line[60:66]) else "  0.00"
    return line[:30] + xyz + occupancy + b_factor + line[66:]


def _is_number(field: str) -> bool:
    try:
        return bool(np.isfinite(float(field)))
    except ValueError:
        return False


def _pdb_segments(atoms: struc.AtomArray, ter_count: np.ndarray) -> np.ndarray:
    """0, 1, ... within a chain name: a new segment where the numbering of ATOM records starts over after a TER.

    Molecules that share one letter, or have none, part here; a chain with a TER at each gap stays one.
    """
    segment = np.zeros(len(atoms), dtype=int)
    for chain in np.unique(atoms.chain_id):
        own = np.flatnonzero((atoms.chain_id == chain) & ~atoms.hetero)
        starts_over = (np.diff(atoms.res_id[own]) < 0) & (np.diff(ter_count[own]) > 0)
        segment[own[1:]] = np.cumsum(starts_over)
        for hetero in np.flatnonzero((atoms.chain_id == chain) & atoms.hetero):
            # a modified residue belongs with the residues around it
            before = np.searchsorted(own, hetero)
            segment[hetero] = segment[own[before - 1]] if before else 0
    return segment


def _parse_mmcif(text: str, model: int) -> tuple[struc.AtomArray, int]:
    blocks = [block for block in CIFFile.read(io.StringIO(text)).values() if "atom_site" in block]
    if not blocks:
        raise UserError("the file holds no atoms (it has no _atom_site records)")
    table = blocks[0]["atom_site"]

    number = _column(table, "pdbx_PDB_model_num", default="1")
    models = list(dict.fromkeys(number.tolist()))
    _pick_model(len(models), model)
    rows = number == models[model - 1]

    def column(*names, default="", dtype=str):
        return _column(table, *names, default=default)[rows].astype(dtype)

    atoms = struc.AtomArray(int(rows.sum()))
    atoms.coord = np.stack([column(f"Cartn_{axis}", default="nan", dtype=np.float32) for axis in "xyz"], axis=-1)
    atoms.chain_id = column("auth_asym_id", "label_asym_id")
    atoms.res_id = column("auth_seq_id", "label_seq_id", default="-1", dtype=int)
    atoms.ins_code = column("pdbx_PDB_ins_code")
    atoms.res_name = column("auth_comp_id", "label_comp_id")
    atoms.atom_name = column("auth_atom_id", "label_atom_id")
    atoms.element = column("type_symbol")
    atoms.hetero = column("group_PDB", default="ATOM") == "HETATM"
    atoms.set_annotation("occupancy", column("occupancy", default="1", dtype=float))
    atoms.set_annotation("b_factor", column("B_iso_or_equiv", default="0", dtype=float))
    atoms.set_annotation("altloc_id", column("label_alt_id"))
    atoms.set_annotation("segment", np.unique(column("label_asym_id"), return_inverse=True)[1])
    atoms.set_annotation("seq_pos", column("label_seq_id", default="-1", dtype=int))
    return atoms, len(models)


def _column(table, *names: str, default: str) -> np.ndarray:
    """Values of the first of these columns that has one ("." and "?" are none), row by row."""
    values = np.full(table.row_count, "", dtype=object)
    for name in names:
        if name in table:
            values = np.where(values == "", table[name].as_array(str, "").astype(object), values)
    return np.where(values == "", default, values)
