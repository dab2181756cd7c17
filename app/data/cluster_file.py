"""Cluster files in Multiflow's format: a line a cluster, of entries `<id>_<chain>` with blanks between them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from app.errors import UserError
from app.structure.atomic import replacing


def read_clusters(path: Path) -> dict[str, list[int]]:
    """Clusters (line numbers) of each entry, in upper case: of `<id>_<chain>` as it stands, of `<id>` all its chains'.

    Raises UserError where the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{path}: not a readable cluster file; one line a cluster, <id>_<chain> entries") from error
    members = [(entry.upper(), number) for number, line in enumerate(lines) for entry in line.split()]
    chains: dict[str, list[int]] = {}
    whole: dict[str, list[int]] = {}
    for entry, number in members:
        whole.setdefault(entry, []).append(number)
        if "_" in entry:
            chains.setdefault(entry.rpartition("_")[0], []).append(number)
    return chains | whole


def write_clusters(path: Path, names: Iterable[str], clusters: Iterable[int]) -> None:
    """names, clusters: of every example. Written whole or not at all. Raises UserError where it cannot be."""
    members: dict[int, list[str]] = {}
    for name, cluster in zip(names, clusters, strict=True):
        members.setdefault(int(cluster), []).append(name)
    try:
        with replacing(path) as aside:
            text = "".join(f"{' '.join(those)}\n" for those in members.values())
            aside.write_text(text, encoding="utf-8", errors="surrogateescape")  # a file's name may be no text
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def clusters_of_file(path: Path, names: Iterable[str]) -> np.ndarray:
    """[names] int64: the cluster of each name, -1 for those in none; see `joined` for those in several.

    Raises UserError: the file cannot be read, or knows none of the names.
    """
    known = read_clusters(path)
    lines = [known.get(name.upper(), []) for name in names]
    if not any(lines):
        raise UserError(f"{path}: knows none of the examples; its entries have to be <id>_<chain>, as in 1ubq_A")
    return joined(lines)


def joined(memberships: Sequence[Sequence[int]]) -> np.ndarray:
    """[members] int64: the cluster of each member, numbered from 0 as they appear; -1 where it has none.

    memberships: the clusters of each; all that one member is in become one cluster, and so on.
    """
    edges = [(own[0], other) for own in memberships if own for other in own]
    one, other = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    size = 1 + max(one.max(initial=-1), other.max(initial=-1))
    component = connected_components(coo_array((np.ones(len(edges)), (one, other)), shape=(size, size)), False)[1]
    number: dict[int, int] = {}
    return np.array(
        [number.setdefault(int(component[own[0]]), len(number)) if own else -1 for own in memberships], dtype=np.int64
    )
