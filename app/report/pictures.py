"""What a page carries of each design's structure and way from noise, within bounds that keep it quick to open."""

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.chem.residues import AATYPES_WITH_X
from app.errors import UserError
from app.evaluation.secondary_structure import secondary_structure
from app.report.coordinates import packed, packed_bytes
from app.report.designs import Folder
from app.report.models import ATOMS, CA, C, Model, read_any, read_own

DESIGNS = 5000
"""Most designs of a page; the first ones count."""

STRUCTURE_BYTES = 8 * 2**20
"""Most coordinates of all structures together, before base64 makes them a third longer: 5,800 chains of 60 residues."""

PATH_BYTES = 8 * 2**20
"""Most coordinates of all trajectories together, likewise: those of 370 chains of 60 residues, CA atoms alone."""

FRAMES = 31
"""Most models of one trajectory, evenly chosen, the first and the last among them."""

_BYTES = 2 * 3  # of an atom
_OWN_SUFFIX = ".pdb"


@dataclass
class Pictures:
    """models, states: of the designs that could be read, by id: structures, and a letter of secondary structure a
    residue. entries: what the page carries, by id. notes: what it does not."""

    models: dict[str, Model] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    certainty: dict[str, np.ndarray] = field(default_factory=dict)  # [N], 0 to 100
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def take_pictures(folder: Folder) -> Pictures:
    """Read what is drawn of a folder's first `DESIGNS` designs."""
    pictures = Pictures()
    unreadable, no_room, no_room_for_path = [], [], []
    room, room_for_paths = STRUCTURE_BYTES, PATH_BYTES
    has_certainty = bool(folder.manifest)  # elsewhere the column is anybody's
    for design in folder.designs[:DESIGNS]:
        if design.structure is None:
            continue
        try:
            model = _read(design.structure, bool(folder.manifest))
        except UserError:
            unreadable.append(design.id)
            continue
        pictures.models[design.id] = model
        design.length, design.sequence = design.length or len(model), design.sequence or model.sequence
        pictures.states[design.id] = states = _states(model)
        if has_certainty and model.b_factors.any():
            pictures.certainty[design.id] = model.b_factors.clip(0, 100)
        size = len(model) * len(ATOMS) * _BYTES
        if size > room:
            no_room.append(design.id)
            continue
        room -= size
        entry = pictures.entries[design.id] = _entry(model, states, pictures.certainty.get(design.id))
        entry["paths"] = []
        for name, file in (("path", design.path), ("clean", design.clean)):
            if file is None:
                continue
            size = FRAMES * len(model) * _BYTES
            if size > room_for_paths:
                no_room_for_path.append(design.id)
                break
            try:
                entry["paths"].append(_path(name, file, len(model)))
                room_for_paths -= size
            except UserError:
                unreadable.append(file.name)
    _tell(pictures.notes, "cannot be read", unreadable)
    limits = STRUCTURE_BYTES >> 20, PATH_BYTES >> 20
    _tell(pictures.notes, f"not drawn: a page holds {limits[0]} MB of structures", no_room)
    _tell(pictures.notes, f"without their way from noise: a page holds {limits[1]} MB of it", no_room_for_path)
    if len(folder.designs) > DESIGNS:
        left = len(folder.designs) - DESIGNS
        pictures.notes.append(f"{left:,} further designs: a page holds {DESIGNS:,}")
    return pictures


def _read(path: Path, own: bool) -> Model:
    return read_own(path)[0] if own and path.suffix == _OWN_SUFFIX else read_any(path)


def _entry(model: Model, states: str, certainty: np.ndarray | None) -> dict[str, Any]:
    lengths = [(name, len(list(members))) for name, members in groupby(model.chains)]
    entry = {"residues": len(model), "sequence": model.sequence, "states": states, "chains": lengths}
    counted = [str(number) for _, length in lengths for number in range(1, length + 1)]
    if model.numbers != counted:
        entry["numbers"] = model.numbers
    if certainty is not None:
        entry["certainty"] = packed_bytes(certainty)
    return entry | packed(model.backbone)


def _path(name: str, file: Path, residues: int) -> dict[str, Any]:
    """Of each chosen model the CA atoms, the sequence, and the certainty where there is one."""
    chosen: list[int] = []
    total = 0

    def choose(models: int) -> list[int]:
        nonlocal chosen, total
        total = models
        chosen = np.unique(np.linspace(0, models - 1, min(models, FRAMES)).round().astype(int)).tolist()
        return chosen

    models = read_own(file, choose)
    if any(len(model) != residues for model in models):
        raise UserError(f"{file}: a model has another number of residues than the design")
    points = np.stack([model.backbone[:, CA] for model in models])  # [T, N, 3]
    path = {"name": name, "models": total, "chosen": chosen}
    path["sequences"] = [model.sequence for model in models]
    certainty = np.stack([model.b_factors for model in models])
    if certainty.any():
        path["certainty"] = packed_bytes(certainty.clip(0, 100))
    return path | packed(points)


def _states(model: Model) -> str:
    order = {name: index for index, name in enumerate(dict.fromkeys(model.chains), start=1)}
    chain_idx = torch.tensor([order[name] for name in model.chains])
    aatypes = torch.tensor([AATYPES_WITH_X.index(letter) for letter in model.sequence])
    return secondary_structure(torch.from_numpy(model.backbone[:, : C + 1]), chain_idx, aatypes)


def _tell(notes: list[str], what: str, names: list[str], most: int = 5) -> None:
    if names:
        more = f" and {len(names) - most:,} more" if len(names) > most else ""
        notes.append(f"{what}: {', '.join(names[:most])}{more}")
