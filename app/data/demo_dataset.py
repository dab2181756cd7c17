"""`data=demo`: the embedded set of synthetic chains (see `app.data.demo` and data/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from app.chem import atoms as slot
from app.chem.atoms import NUM_ATOM37
from app.chem.residues import AATYPES
from app.data.demo import FILE, SIZES
from app.data.features import features
from app.data.seen import Seen
from app.errors import UserError
from app.types import Protein

_CURE = "write it with `python -m app.data.demo`, or take it from the repository"


class DemoDataset:
    """The training or held-out chains of the demo set, all of them synthetic.

    names: of the chains. lengths: [n] int64 residues. secondary_structure: one string of H, E and L (the rest) a chain.

    Raises UserError: split unknown; file missing or unreadable.
    """

    def __init__(self, split: str = "train", file: Path = FILE):
        if split not in SIZES:
            raise UserError(f"data.split: {split!r} is unknown; choose one of {', '.join(SIZES)}")
        self._split, self._file = split, file
        about, tensors = _read(file)
        chosen = np.flatnonzero(tensors["held_out"] == (split == "held_out"))
        ends = np.cumsum(tensors["lengths"], dtype=np.int64)
        own = [slice(int(ends[k] - tensors["lengths"][k]), int(ends[k])) for k in chosen]
        self.names = [about["names"][k] for k in chosen]
        self.lengths = tensors["lengths"][chosen].astype(np.int64)
        states = [tensors["secondary_structure"][part] for part in own]
        self.secondary_structure = ["".join(about["secondary_structure"][state] for state in chain) for chain in states]
        self._coordinates = [tensors["coordinates"][part] for part in own]
        self._aatype = [tensors["aatype"][part].astype(np.int64) for part in own]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Features of one chain (see `app.data.features`) and its name."""
        return {**features(self.protein(index)), "name": self.names[index]}

    def draw(self, epoch: int, seed: int) -> np.ndarray:
        """The examples of an epoch: all of them."""
        return np.arange(len(self))

    def split(self, seen: Seen | None = None) -> tuple[DemoDataset, DemoDataset | None]:
        """These chains, and to the training chains those that are held out: the same always, whatever was seen."""
        return self, DemoDataset("held_out", self._file) if self._split == "train" else None

    def protein(self, index: int) -> Protein:
        """One chain with N, CA, C, O and CB (glycine without); no other side-chain atoms, no B-factors."""
        aatype = self._aatype[index]
        atom37 = np.zeros((len(aatype), NUM_ATOM37, 3), dtype=np.float32)
        atom37[:, :5] = self._coordinates[index]
        atom_mask = np.zeros((len(aatype), NUM_ATOM37), dtype=bool)
        atom_mask[:, :5] = True
        atom_mask[aatype == AATYPES.index("G"), slot.CB] = False
        return Protein(
            name=self.names[index],
            atom37=atom37,
            atom_mask=atom_mask,
            aatype=aatype.copy(),
            res_idx=np.arange(1, len(aatype) + 1),
            chain_idx=np.ones(len(aatype), dtype=np.int64),
            chain_ids=("A",),
            b_factors=np.zeros(len(aatype), dtype=np.float32),
        )


def _read(file: Path) -> tuple[dict, dict[str, np.ndarray]]:
    try:
        with safe_open(file, framework="np") as opened:
            return json.loads(opened.metadata()["demo"]), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise UserError(f"{file}: the demo set is not there; {_CURE}") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: not a readable demo set ({error}); {_CURE}") from None
