"""Structure files made for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.chem.residues import AATYPES_WITH_X
from app.structure.write import write_pdb


def write(path: Path, *lengths: int, aatype: int = 0, seed: int = 0) -> Path:
    """A file with one chain of each length, of one residue type."""
    return _write(path, lengths, np.full(sum(lengths), aatype), seed)


def write_sequences(path: Path, *sequences: str, seed: int = 0) -> Path:
    """A file with one chain of each sequence."""
    aatypes = [AATYPES_WITH_X.index(letter) for letter in "".join(sequences)]
    return _write(path, [len(sequence) for sequence in sequences], np.array(aatypes), seed)


def _write(path: Path, lengths: Sequence[int], aatypes: np.ndarray, seed: int) -> Path:
    total = sum(lengths)
    atom37 = np.zeros((total, 37, 3), dtype=np.float32)
    atom37[:, :3] = np.random.default_rng(seed).normal(scale=20, size=(total, 3, 3)).round(3)
    chain_idx = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    res_idx = np.concatenate([np.arange(1, length + 1) for length in lengths])
    write_pdb(path, atom37, aatypes, chain_idx, res_idx)
    return path
