"""Sequences from FASTA files."""

import gzip
import io
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from biotite.file import InvalidFileError
from biotite.sequence.io.fasta import FastaFile

from app.chem.residues import AATYPES_WITH_X, UNKNOWN
from app.errors import UserError
from app.structure.parse import read_bytes

FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fas")

_PARENT = {"U": "C", "O": "K"}  # selenocysteine and pyrrolysine, as in structure files
_GAPS = "-."
_SILENT = _GAPS + "* \t"


def is_fasta(path: Path) -> bool:
    """Whether the suffix, with or without .gz, is one of FASTA files."""
    return Path(path.name.lower().removesuffix(".gz")).suffix in FASTA_SUFFIXES


class Record(NamedTuple):
    """A sequence of a FASTA file."""

    name: str  # the header's first word
    aatypes: np.ndarray  # [N] int64, N may be 0
    notes: list[str]  # what was changed in reading
    fault: str | None = None  # why it cannot be used


def read_fasta(path: Path) -> list[Record]:
    """The records of a file.

    Case does not matter; gaps, spaces and a final stop (*) are left out; U and O are read as their parents C and K, any
    other letter that is none of the twenty as X; notes say so. A record with anything else has a fault, and no residue.
    Raises UserError: unreadable, empty or not FASTA.
    """
    content = read_bytes(path)
    try:
        if path.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
        records = list(FastaFile.read_iter(io.StringIO(content.decode("utf-8-sig", errors="replace"))))
    except (EOFError, OSError, zlib.error):
        raise UserError(f"{path}: the gzip data is truncated or damaged; get the file again") from None
    except InvalidFileError:
        records = []
    if not records:
        raise UserError(f"{path}: holds no FASTA record; one is a line '>name' and lines with its sequence")
    return [_record(header.split()[0] if header.split() else "", text) for header, text in records]


def _record(name: str, text: str) -> Record:
    if strange := sorted({letter for letter in text if not letter.isalpha() and letter not in _SILENT}):
        fault = f"it holds {' '.join(strange)}, which is no residue; give one record a chain"
        return Record(name, np.empty(0, dtype=np.int64), [], fault)
    return Record(name, *_aatypes(text))


def _aatypes(text: str) -> tuple[np.ndarray, list[str]]:
    letters = "".join(text.split()).upper().removesuffix("*")
    kept = "".join(_PARENT.get(letter, letter) for letter in letters if letter not in _GAPS)
    unknown = Counter(letter for letter in kept if letter not in AATYPES_WITH_X)
    notes = []
    if gaps := sum(letters.count(gap) for gap in _GAPS):
        notes.append(f"{gaps} gaps left out")
    if parents := sum(letters.count(letter) for letter in _PARENT):
        notes.append(f"{parents} modified residues (U, O) read as their parents")
    if unknown:
        notes.append(f"{unknown.total()} letters that are no residue type read as X: {' '.join(sorted(unknown))}")
    index = {letter: place for place, letter in enumerate(AATYPES_WITH_X)}
    return np.array([index.get(letter, UNKNOWN) for letter in kept], dtype=np.int64), notes
