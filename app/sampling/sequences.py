"""Sequences from FASTA files."""

import gzip
import io
import zlib
from collections import Counter
from pathlib import Path

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


def read_fasta(path: Path) -> list[tuple[str, np.ndarray, list[str]]]:
    """(name, aatypes [N] int64, notes) of each record; the name is the header's first word, N may be 0.

    Case does not matter; gaps, spaces and a final stop (*) are left out; U and O are read as their parents C and K, any
    other letter that is none of the twenty as X; notes say so. Raises UserError: unreadable, empty or not FASTA.
    """
    content = read_bytes(path)
    try:
        if path.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
        records = list(FastaFile.read_iter(io.StringIO(content.decode("utf-8-sig"))))
    except (EOFError, OSError, zlib.error):
        raise UserError(f"{path}: the gzip data is truncated or damaged; get the file again") from None
    except (UnicodeDecodeError, InvalidFileError):
        records = []
    if not records:
        raise UserError(f"{path}: holds no FASTA record; one is a line '>name' and lines with its sequence")
    for header, text in records:
        if strange := sorted({letter for letter in text if not letter.isalpha() and letter not in _SILENT}):
            raise UserError(
                f"{path}: record {header!r} holds {' '.join(strange)}, which is no residue; give one record a chain"
            )
    return [(header.split()[0] if header.split() else "", *_aatypes(text)) for header, text in records]


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
