"""What runs of the tests are asked for, and structure files to fold and refold."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from app.geometry.backbone import to_atom37
from app.sampling.designs import Design
from app.sampling.given import Given, Kept
from app.structure.write import write_pdb
from app.types import Frames
from tests.factories import protein_batch

STEPS = 6


def atom37_of(backbone: torch.Tensor) -> torch.Tensor:
    """[N, 5, 3] (N, CA, C, CB, O) -> [N, 37, 3]."""
    return torch.nn.functional.pad(backbone, (0, 0, 0, 32))


def partly_fixed(length: int, fixed: Iterable[int]) -> Design:
    """A chain of partial design, numbered from 1, of which the residues at these places are fixed."""
    clean = protein_batch(length=length)
    frames, counted = Frames(clean.rotmats_1[0], clean.trans_1[0]), torch.arange(1, length + 1)
    stay = torch.zeros(length, dtype=torch.bool)
    stay[list(fixed)] = True
    kept = Kept(stay, to_atom37(frames), (torch.arange(37) < 5).expand(length, 37))
    aatypes = clean.aatypes_1[0]
    given = Given(
        "x", "x", aatypes, torch.ones_like(counted), counted, counted.numpy(), ("A",), frames=frames, kept=kept
    )
    return Design("x_0", length, 0, given)


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
