"""One design at a time, in any process: read, measured, held against its reference."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.chem import atoms
from app.chem.residues import to_sequence
from app.config.keys import one_line
from app.errors import UserError
from app.evaluation import against, design
from app.evaluation.cache import Cache, key_of
from app.evaluation.columns import AGAINST, DESIGN, SKIPPED, skipped
from app.evaluation.diversity import Trace, digest_of
from app.evaluation.found import Found, is_altered
from app.evaluation.references import References, protein_of
from app.structure.parse import read_bytes
from app.structure.read import read_content, split_chains
from app.types import Protein


@dataclass(frozen=True)
class Task:
    path: Path
    measures: bool  # whether the design itself is to be measured, which is not known yet
    reference: tuple[Path, str | None] | None  # file and chain to compare with, if that is not known yet


@dataclass
class Measured:
    """What is known of a design so far."""

    found: Found
    error: str = ""
    sha256: str = ""
    values: dict[str, Any] = field(default_factory=dict)  # by the cache's design key
    against: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    has_reference: bool = False
    _protein: Protein | None = None

    @property
    def is_altered(self) -> bool:
        """Whether the file was changed since the manifest was written."""
        return bool(self.sha256) and is_altered(self.found.record, self.found.relative, self.sha256)

    @property
    def not_compared(self) -> str | None:
        """Why there are no numbers against its reference, where it has one."""
        told = self.against.get("reference", "")
        return told.removeprefix(SKIPPED) if self.has_reference and told.startswith(SKIPPED) else None

    @property
    def protein(self) -> Protein:
        """Read when it is first needed."""
        if self._protein is None:
            self._protein = read_content(read_bytes(self.found.path), self.found.path)[0]
        return self._protein

    @property
    def trace(self) -> Trace:
        """Of all chains as one."""
        ca = self.protein.atom37[:, atoms.CA]
        return digest_of(ca), ca

    @property
    def chains(self) -> list[np.ndarray]:
        """CA [N, 3] of each chain, angstrom."""
        return [chain.atom37[:, atoms.CA] for chain in split_chains(self.protein)]


def begin(found: Found, references: References, cache: Cache) -> tuple[Measured, Task | None]:
    """What the cache has of a design, and what is to be done for the rest."""
    known = Measured(found, error=found.missing)
    if known.error:
        return known, None
    try:
        known.sha256 = hashlib.sha256(read_bytes(found.path)).hexdigest()
    except UserError as error:
        known.error = _reason(error, found.path)
        return known, None
    known.keys["design"] = key_of("design", design.VERSION, known.sha256)
    values = cache.get(known.keys["design"])
    whole = _has(values, (*_ABOUT, "columns")) and _has(values["columns"], DESIGN)
    known.values = values if whole else {}
    reference = None
    try:
        reference = path, chain = references.of(found)
        known.has_reference = True
        digest = hashlib.sha256(read_bytes(path) + f" {chain}".encode()).hexdigest()
        known.keys["against"] = key_of("against", against.VERSION, known.sha256, digest)
        compared = cache.get(known.keys["against"])
        known.against = compared if _has(compared, AGAINST) else {}
    except UserError as error:
        known.against = skipped(AGAINST, one_line(error))
    if known.values and known.against:
        return known, None
    return known, Task(found.path, not known.values, None if known.against else reference)


def _has(values: Any, columns: tuple[str, ...]) -> bool:
    """Whether these are all of the columns, as of what another version kept they need not be."""
    return isinstance(values, dict) and values.keys() == set(columns)


def perform(task: Task) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Values of the design, those against its reference, and what went wrong with the design ("": nothing)."""
    try:
        protein, report = read_content(read_bytes(task.path), task.path)
        values = _about(protein, report.notes()) | {"columns": design.measures(protein)} if task.measures else {}
    except UserError as error:
        return {}, {}, _reason(error, task.path)
    except Exception as error:  # whatever is wrong with one design, the others go on
        return {}, {}, f"unexpected {type(error).__name__}: {one_line(error)}"
    if task.reference is None:
        return values, {}, ""
    path, chain = task.reference
    name = path.name if chain is None else f"{path.name} chain {chain}"
    try:
        return values, against.compared(protein, protein_of(path, chain), name), ""
    except UserError as error:
        return values, skipped(AGAINST, one_line(error)), ""
    except Exception as error:
        return values, skipped(AGAINST, f"unexpected {type(error).__name__}: {one_line(error)}"), ""


_ABOUT = ("length", "chains", "sequence", "b_factor", "notes")


def _about(protein: Protein, notes: list[str]) -> dict[str, Any]:
    chains = [to_sequence(protein.aatype[protein.chain_idx == index + 1]) for index in range(len(protein.chain_ids))]
    b_factors = protein.b_factors
    return {
        "length": len(protein),
        "chains": len(protein.chain_ids),
        "sequence": "/".join(chains),
        "b_factor": round(float(np.mean(b_factors)), 3),
        "notes": notes,
    }


def _reason(error: UserError, path: Path) -> str:
    return one_line(error).removeprefix(f"{path}: ")
