"""Backbones out of PDB files that Trunkline wrote, quickly: by columns, and of a trajectory only the models wanted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.chem.residues import AATYPES_WITH_X, index_of
from app.errors import UserError
from app.structure.read import read_structure

ATOMS = ("N", "CA", "C", "O")
"""What is kept of each residue, in this order."""

N, CA, C, O = range(4)  # noqa: E741 - the oxygen's name

_FROM_ATOM37 = [0, 1, 2, 4]
_WIDTH = 80  # columns of a PDB file
_SMALLEST = 67  # columns up to the B-factor's end


@dataclass(frozen=True)
class Model:
    """A structure of N residues, as far as it is drawn. Absent atoms are NaN."""

    backbone: np.ndarray  # [N, 4, 3] float32 angstrom, by ATOMS
    b_factors: np.ndarray  # [N] float32, of the first atom of each residue
    sequence: str
    chains: list[str]  # of each residue
    numbers: list[str]  # of each residue, with its insertion code

    def __len__(self) -> int:
        return len(self.sequence)


def read_own(path: Path, choose: Callable[[int], Sequence[int]] = lambda models: [0]) -> list[Model]:
    """The chosen models of a PDB file with the columns that `app.structure.write` fills.

    choose: of a number of models, which are wanted; 0 is the first. Raises UserError where the file cannot be read, or
    has no atoms or no numbers where they should be.
    """
    try:
        parts = path.read_bytes().split(b"\nMODEL ")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    parts = parts[1:] if len(parts) > 1 and b"\nATOM  " not in b"\n" + parts[0] else parts
    try:
        return [_model(parts[index]) for index in choose(len(parts))]
    except (ValueError, IndexError):
        raise UserError(f"{path}: not a PDB file as Trunkline writes it, or damaged") from None


def read_any(path: Path) -> Model:
    """A structure file of anybody's. Raises UserError as `read_structure`."""
    protein = read_structure(path)
    backbone = np.where(protein.atom_mask[..., None], protein.atom37, np.nan)[:, _FROM_ATOM37]
    return Model(
        backbone=backbone.astype(np.float32),
        b_factors=protein.b_factors,
        sequence="".join(AATYPES_WITH_X[index] for index in protein.aatype),
        chains=[protein.chain_ids[index - 1] for index in protein.chain_idx],
        numbers=[str(number) for number in protein.res_idx],
    )


def _model(text: bytes) -> Model:
    lines = [line for line in text.split(b"\n") if line[:6] in (b"ATOM  ", b"HETATM")]
    if not lines or min(map(len, lines)) < _SMALLEST - 1:
        raise ValueError
    characters = np.array(lines, dtype=f"S{_WIDTH}").view("S1").reshape(-1, _WIDTH)

    def column(first: int, last: int, dtype: type | str = "U") -> np.ndarray:
        """Columns as the PDB counts them, from 1, both included."""
        field = np.ascontiguousarray(characters[:, first - 1 : last])
        text = field.view(f"S{last - first + 1}")[:, 0]
        return np.char.strip(text.astype("U")) if dtype == "U" else text.astype(dtype)

    residue_of = column(22, 27)
    begins = np.append(True, residue_of[1:] != residue_of[:-1])
    residue = begins.cumsum() - 1
    first = np.flatnonzero(begins)
    backbone = np.full((len(first), len(ATOMS), 3), np.nan, dtype=np.float32)
    place = np.stack([column(31, 38, float), column(39, 46, float), column(47, 54, float)], axis=-1)
    names = column(13, 16)
    for slot, name in enumerate(ATOMS):
        here = names == name
        backbone[residue[here], slot] = place[here]
    backbone[~np.isfinite(backbone)] = np.nan
    return Model(
        backbone=backbone,
        b_factors=np.nan_to_num(column(61, 66, float))[first].astype(np.float32),
        sequence="".join(AATYPES_WITH_X[index_of(name)] for name in column(18, 20)[first].tolist()),
        chains=column(22, 22)[first].tolist(),
        numbers=column(23, 27)[first].tolist(),
    )
