"""Diversity and novelty by foldseek (van Kempen et al. 2024), where it is installed: for sets too large for our search.

The flags are those that Multiflow reports (Campbell et al. 2024), and are recorded with its version.
"""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.chem import atoms
from app.errors import UserError
from app.structure.read import split_chains
from app.structure.write import write_pdb
from app.types import Protein

PROGRAM = "foldseek"

CLUSTER = ("--alignment-type", "1", "--cov-mode", "0", "--min-seq-id", "0", "--tmscore-threshold", "0.5")

SEARCH = (
    *("--alignment-type", "1", "--exhaustive-search", "--max-seqs", "10000000", "--tmscore-threshold", "0.0"),
    *("--format-output", "query,target,qtmscore"),
)

_NUMBER = re.compile(r"^d(\d+)(?:\.pdb)?(?:_A)?$")


def identity() -> dict[str, str] | None:
    """Where it is and its version; None where it is not installed or does not run."""
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    try:
        return {"name": PROGRAM, "version": _run([program, "version"]).strip()[:100]}
    except UserError:
        return None


def clusters(designs: Mapping[str, Protein]) -> tuple[dict[str, int], dict[str, Any]]:
    """Cluster of each design, 0 the one of the most members, and how it was found. Raises UserError where it fails."""
    with tempfile.TemporaryDirectory(prefix="trunkline-") as scratch:
        folder, names = _written(list(designs.items()), Path(scratch))
        command = [PROGRAM, "easy-cluster", str(folder), f"{scratch}/result", f"{scratch}/tmp", *CLUSTER]
        _run(command)
        rows = _rows(Path(scratch, "result_cluster.tsv"), 2)
    of = {_name(member, names): _name(leader, names) for leader, member in rows}
    if of.keys() != designs.keys():
        raise UserError(f"{PROGRAM} put {len(of)} of {len(designs)} designs into clusters")
    order = [leader for leader, _ in Counter(of.values()).most_common()]
    return {name: order.index(of[name]) for name in designs}, _told(command, scratch)


def novelty(designs: Mapping[str, Protein], known: Path) -> tuple[dict[str, tuple[float, str]], dict[str, Any]]:
    """The highest TM-score of any chain of each design, as a mean over its residues, and to what; and how it was found.
    Raises UserError where it fails."""
    with tempfile.TemporaryDirectory(prefix="trunkline-") as scratch:
        chains = [(name, chain) for name, protein in designs.items() for chain in split_chains(protein)]
        folder, names = _written(chains, Path(scratch))
        command = [PROGRAM, "easy-search", str(folder), str(known), f"{scratch}/result.tsv", f"{scratch}/tmp", *SEARCH]
        _run(command)
        rows = _rows(Path(scratch, "result.tsv"), 3)
    best = dict.fromkeys(designs, (0.0, ""))
    for query, target, score in rows:
        name = _name(query, names)
        best[name] = max(best[name], (min(1.0, float(score)), target))
    return best, _told(command, scratch)


def _written(entries: Sequence[tuple[str, Protein]], scratch: Path) -> tuple[Path, list[str]]:
    """Each entry as one chain, under its number: names may hold what the program takes for something else."""
    folder = scratch / "designs"
    for number, (_, protein) in enumerate(entries):
        every = np.arange(1, len(protein) + 1)
        write_pdb(
            folder / f"d{number}.pdb",
            protein.atom37 - protein.atom37[:, atoms.CA].mean(0),
            protein.aatype,
            np.ones_like(every),
            every,
            atom_mask=protein.atom_mask,
        )
    return folder, [name for name, _ in entries]


def _name(entry: str, names: list[str]) -> str:
    match = _NUMBER.match(entry)
    if match is None or int(match[1]) >= len(names):
        raise UserError(f"{PROGRAM} names {entry[:80]!r}, which it was not given")
    return names[int(match[1])]


def _rows(path: Path, width: int) -> list[list[str]]:
    try:
        rows = [line.split("\t") for line in path.read_text().splitlines()]
    except OSError as error:
        raise UserError(f"{PROGRAM} wrote no {path.name}: {error.strerror}") from None
    if any(len(row) != width for row in rows):
        raise UserError(f"{PROGRAM} wrote {path.name} in another form than expected")
    return rows


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except OSError as error:
        raise UserError(f"{PROGRAM}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout or "").split())[-200:]
        raise UserError(f"{PROGRAM} {command[1]} ended with status {error.returncode}: {said}") from None


def _told(command: list[str], scratch: str) -> dict[str, Any]:
    return (identity() or {"name": PROGRAM}) | {"command": " ".join(command).replace(scratch, "TMP")}
