"""What runs of the tests are asked for, and structure files to fold and refold."""

from pathlib import Path

import numpy as np
import torch

from app.geometry.backbone import to_atom37
from app.structure.write import write_pdb
from app.types import Frames
from tests.factories import protein_batch

STEPS = 6
UNCONDITIONAL = {"task": "unconditional", "lengths": [9, 14], "samples_per_length": 2}


def write_structure(path: Path, *lengths: int, first: int = 1, shift: float = 0.0, seed: int = 0) -> Path:
    """Chains A, B, ... of these lengths with whole backbones; residue numbers begin at `first` and skip one number.

    shift: the whole is moved by that many angstrom along each axis.
    """
    total = sum(lengths)
    clean = protein_batch(length=total, seed=seed)
    atom37 = to_atom37(Frames(clean.rotmats_1[0], clean.trans_1[0]))
    atom37[:, :5] += shift
    numbers = [first + index + (index > length // 2) for length in lengths for index in range(length)]
    chain_idx = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    mask = (torch.arange(37) < 5).expand(total, 37)
    write_pdb(path, atom37, clean.aatypes_1[0], chain_idx, numbers, atom_mask=mask)
    return path
