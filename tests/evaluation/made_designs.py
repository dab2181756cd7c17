"""Folders of designs to evaluate, made of ideal geometry."""

import hashlib
import json
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from app.data.demo_dataset import DemoDataset
from app.geometry import internal
from app.structure.write import write_pdb
from tests.data.made_demo import SETS

PLACED = np.arange(37) < 5


def helix(length: int = 20) -> np.ndarray:
    """[N, 5, 3] angstrom: N, CA, C, CB, O."""
    return internal.backbone(*(np.full(length, np.radians(angle)) for angle in (-57.8, -47.0, 180.0)))


def strand(length: int = 20) -> np.ndarray:
    return internal.backbone(*(np.full(length, np.radians(angle)) for angle in (-120.0, 130.0, 180.0)))


def demo(index: int):
    data: DemoDataset = SETS["held_out"]
    return data.protein(index)


def write(
    path: Path, backbone: np.ndarray, aatypes: Sequence[int] | int = 0, chains: Sequence[int] | None = None
) -> Path:
    length = len(backbone)
    atom37 = np.zeros((length, 37, 3))
    atom37[:, :5] = backbone[:, :5]
    chains = np.ones(length, int) if chains is None else np.asarray(chains)
    numbers = np.concatenate([np.arange(1, (chains == chain).sum() + 1) for chain in np.unique(chains)])
    mask = np.broadcast_to(PLACED, (length, 37))
    write_pdb(path, atom37, np.broadcast_to(aatypes, length), chains, numbers, np.full(length, 50.0), mask)
    return path


def write_demo(path: Path, index: int, shift: float = 0.0) -> Path:
    protein = demo(index)
    return write(path, protein.atom37[:, :5] + shift, protein.aatype)


def write_manifest(folder: Path, records: Sequence[dict]) -> None:
    """Records of designs; those of which a file lies in `structures` have its hash."""
    for record in records:
        path = folder / "structures" / f"{record['id']}.pdb"
        there = path.is_file()
        record.setdefault("status", "done" if there else "failed")
        digest = {f"structures/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()} if there else {}
        record.setdefault("files", digest)
    (folder / "manifest.json").write_text(json.dumps({"format": 2, "designs": list(records), "seed": 7}))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can be written to beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
