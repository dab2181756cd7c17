"""How like a design is to structures that are known: the highest TM-score to any chain of a folder."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.chem import atoms
from app.errors import UserError
from app.evaluation import align
from app.evaluation.cache import Cache, key_of
from app.evaluation.diversity import digest_of
from app.evaluation.found import structures_in
from app.evaluation.pool import Pool
from app.structure.parse import SUFFIXES
from app.structure.read import read_structure, split_chains

_MUCH = 5_000_000  # pairs of residues worth starting processes for


def read_known(folder: Path, say: Callable[[str], None]) -> dict[str, np.ndarray]:
    """CA [M, 3] of every chain in the folder's structure files, by name. What cannot be read is told, and left out.

    Raises UserError where there is none.
    """
    known = {}
    for name in structures_in(folder, say, "--novelty"):
        try:
            chains = split_chains(read_structure(folder / name))
        except UserError as error:
            say(f"--novelty: left out: {error}")
            continue
        known |= {chain.name: chain.atom37[:, atoms.CA] for chain in chains}
    if not known:
        raise UserError(f"--novelty {folder}: it holds no structure that can be used ({SUFFIXES})")
    return known


def novelty(
    designs: Mapping[str, Sequence[np.ndarray]],
    known: Mapping[str, np.ndarray],
    pool: Pool,
    cache: Cache,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, tuple[float, str]]:
    """The highest TM-score of any chain of each design, as a mean over that chain's residues, and what it is to.

    designs: CA [N, 3] of each chain, angstrom. known: as `read_known` has them.
    """
    everything = hashlib.sha256("".join(f"{name} {digest_of(ca)}\n" for name, ca in known.items()).encode()).hexdigest()
    found: dict[str, tuple[float, str]] = {}
    left = []
    for name, chains in designs.items():
        key = key_of("novelty", align.VERSION, *map(digest_of, chains), everything)
        value: Any = cache.get(key)
        match value:
            case [int() | float() as score, str() as nearest]:
                found[name] = score, nearest
            case _:
                left.append((name, key))
    tasks = [(tuple(designs[name]), dict(known)) for name, _ in left]
    work = sum(len(ca) for chains, _ in tasks for ca in chains) * sum(map(len, known.values()))
    for (name, key), value in zip(left, pool.map(_nearest, tasks, work > _MUCH), strict=True):
        cache.put(key, value)
        found[name] = value
        tell(len(found), len(designs))
    return found


def _nearest(task: tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]) -> tuple[float, str]:
    """Known chains of like length come first: the higher the best so far, the fewer others get a whole search."""
    chains, known = task
    best, nearest = 0.0, ""
    for ca in chains:
        for name in sorted(known, key=lambda name: abs(len(known[name]) - len(ca))):
            score = align.aligned_tm_score(ca, known[name], length=len(ca), limit=best)
            if score > best or not nearest:
                best, nearest = score, name
    return round(best, 5), nearest
