"""The embedded demo set: synthetic protein chains, made by deterministic code and by nothing else.

These are no natural proteins and no designs. Backbones have ideal bond lengths and angles, torsions from the basins of
helices, strands, turns and loops, and folds that nature uses; sequences are drawn from tables that know secondary
structure and burial. Good enough to show that a model learns, good for nothing else.

`python -m app.data.demo` writes the set to data/demo.safetensors (takes a minute or two on one core).
"""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track
from safetensors.numpy import save

from app.chem import atoms as slot
from app.chem.residues import AATYPES
from app.data.demo_assembly import Chain, assemble
from app.data.demo_fold import FOLDS, Blueprint, draw_blueprint
from app.data.demo_refinement import CONTACT
from app.data.demo_sequence import draw_sequence, probabilities
from app.structure.atomic import replacing

VERSION = 1
SEED = 20240711
SIZES = {"train": 320, "held_out": 32}
FILE = Path(__file__).resolve().parents[2] / "data" / "demo.safetensors"

SECONDARY_STRUCTURE = "LHE"
"""Letters behind the numbers in the file: loop, helix, strand."""

LENGTH = 40, 120
COMPACTNESS = 0.85, 1.25
"""Limits on the radius of gyration of CA over 2.2 N^0.38 angstrom, that of globular proteins (Skolnick et al. 1997)."""

OVERLAP = 0.3, 0.6
"""How far atoms may be inside their contact distances, angstrom: three or more residues apart, and two."""

BOND = 3.5
"""Longest N-O distance of a hydrogen bond between strands, angstrom."""


@dataclass
class DemoChain:
    """One chain of the set."""

    name: str
    fold: str
    letters: str  # [N] conformations, keys of `demo_fold.BASINS`
    atoms: np.ndarray  # [N, 5, 3] float32, angstrom: N, CA, C, CB, O; CB is 0 in glycine
    aatype: np.ndarray  # [N] int64
    ceiling: float  # share of residues that the best guess from structure gets right, on average

    @property
    def secondary_structure(self) -> str:
        return "".join(letter if letter in SECONDARY_STRUCTURE else "L" for letter in self.letters)


def make_chain(split: str, index: int) -> DemoChain:
    """Chain number `index` of a split: attempts, each with a generator of its own, until one is a proper chain."""
    fold = list(FOLDS)[index % len(FOLDS)]
    attempt = 0
    while True:
        rng = np.random.default_rng([SEED, list(SIZES).index(split), index, attempt])
        attempt += 1
        blueprint = draw_blueprint(rng, fold)
        if _split_of(blueprint) != split:
            continue
        chain = assemble(rng, blueprint)
        if chain is not None and not faults(blueprint, chain):
            break
    letters, coordinates = "".join(chain.letters), chain.atoms()
    aatype = draw_sequence(rng, letters, coordinates)
    ceiling = float(probabilities(letters, coordinates).max(1).mean())
    coordinates = coordinates - coordinates[:, slot.CA].mean(0)
    coordinates[aatype == AATYPES.index("G"), slot.CB] = 0.0
    name = f"synthetic_{split}_{index:03d}_{fold.replace(', ', '_').replace(' ', '_')}"
    return DemoChain(name, fold, letters, coordinates.astype(np.float32), aatype.astype(np.int64), ceiling)


def _split_of(blueprint: Blueprint) -> str:
    """Every combination of fold and element lengths belongs to one split: no held-out chain has a twin in training."""
    lengths = [positions.shape[1] for positions in blueprint.targets]
    return "held_out" if zlib.crc32(f"{blueprint.fold} {lengths}".encode()) % 4 == 0 else "train"


def faults(blueprint: Blueprint, chain: Chain) -> list[str]:
    """What keeps a chain out of the set: its length or shape, overlapping atoms, strands that came apart."""
    found = []
    if not LENGTH[0] <= len(chain) <= LENGTH[1]:
        return ["length"]
    coordinates = chain.atoms()
    ca = coordinates[:, slot.CA]
    radius = np.sqrt(((ca - ca.mean(0)) ** 2).sum(-1).mean()) / (2.2 * len(chain) ** 0.38)
    if not COMPACTNESS[0] <= radius <= COMPACTNESS[1]:
        found.append("shape")
    if any(overlap(coordinates, apart).max() > most for apart, most in zip((3, 2), OVERLAP, strict=True)):
        found.append("overlap")
    for a, b, _ in blueprint.springs:
        ends = [coordinates[chain.starts[element] + residue, atom] for element, residue, atom in (a, b)]
        if a[2] != slot.CA and np.linalg.norm(ends[0] - ends[1]) > BOND:
            found.append("pairing")
            break
    return found


def overlap(coordinates: np.ndarray, apart: int) -> np.ndarray:
    """[5 N, 5 N] how far atoms of residues at least `apart` along the chain are inside their contact distances."""
    points = coordinates.reshape(-1, 3)
    residue, atom = np.divmod(np.arange(len(points)), 5)
    distance = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    return np.where(residue[None] - residue[:, None] >= apart, CONTACT[atom[:, None], atom[None]] - distance, -np.inf)


def make_all():
    """All chains of the set, split by split."""
    for split, size in SIZES.items():
        for index in range(size):
            yield make_chain(split, index)


def write(path: Path = FILE) -> None:
    """Make the whole set and write it, one chain after the other; the file appears whole or not at all.

    Of all residues `coordinates` [M, 5, 3] (angstrom), `aatype` and `secondary_structure` [M]; of the chains `lengths`
    and `held_out`. The header says what the set is and names the chains.
    """
    chains = list(track(make_all(), description="synthetic chains", total=sum(SIZES.values())))
    tensors = {
        "coordinates": np.concatenate([chain.atoms for chain in chains]),
        "aatype": np.concatenate([chain.aatype for chain in chains]).astype(np.uint8),
        "secondary_structure": np.array(
            [SECONDARY_STRUCTURE.index(c) for chain in chains for c in chain.secondary_structure], dtype=np.uint8
        ),
        "lengths": np.array([len(chain.aatype) for chain in chains], dtype=np.int32),
        "held_out": np.array([k >= SIZES["train"] for k in range(len(chains))], dtype=np.uint8),
    }
    about = {
        "kind": "synthetic protein chains, made by app/data/demo.py; neither natural nor designed",
        "version": VERSION,
        "seed": SEED,
        "atoms": ["N", "CA", "C", "CB", "O"],
        "unit": "angstrom",
        "secondary_structure": SECONDARY_STRUCTURE,
        "recovery_ceiling": {
            split: round(float(np.average([c.ceiling for c in own], weights=[len(c.aatype) for c in own])), 4)
            for split in SIZES
            if (own := [c for c in chains if c.name.startswith(f"synthetic_{split}_")])
        },
        "names": [chain.name for chain in chains],
    }
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}  # written as it lies in memory
    with replacing(path) as aside:  # one key: the order of several is not kept, and the file would differ each time
        aside.write_bytes(save(tensors, metadata={"demo": json.dumps(about)}))


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:2]))
