"""The files of designs, and what is recorded of each: structures, sequences, trajectories."""

from typing import Any

import numpy as np
import torch

from app.chem import atoms
from app.chem.residues import to_sequence
from app.files.whole import told_of
from app.sampling.designs import Design
from app.sampling.inputs import Task
from app.sampling.journal import Journal
from app.sampling.manifest import sha256_of
from app.sampling.measures import measures
from app.sampling.request import Request
from app.sampling.trajectory import Trajectory
from app.structure.write import CHAIN_LETTERS, write_pdb

SEQUENCES, STRUCTURES, TRAJECTORIES = "sequences.fasta", "structures", "trajectories"

EVERYTHING = {"trajectories": True}
"""Settings with which all files are written that a design can have."""

_PLACED = np.isin(np.arange(atoms.NUM_ATOM37), (atoms.N, atoms.CA, atoms.C, atoms.O, atoms.CB))


def outputs(design_id: str, request: Request) -> list[str]:
    """The files of a design, by their places in the run's folder."""
    names = [f"{STRUCTURES}/{design_id}.pdb"]
    if request.trajectories:
        names += [f"{TRAJECTORIES}/{design_id}_path.pdb", f"{TRAJECTORIES}/{design_id}_clean.pdb"]
    return names


def pending(design: Design, task: Task) -> dict[str, Any]:
    """The record of a design that is yet to be made."""
    return {
        "id": design.id,
        "length": design.length,
        "chains": {CHAIN_LETTERS[0]: design.length},
        "task": task.value,
        "seed": design.seed,
        "status": "pending",
        "error": None,
        "files": {},
        "sequence": None,
        "flags": [],
    } | _provenance(design)


class Results:
    """Writes what has become of designs, and journals it. Every file appears whole."""

    def __init__(self, request: Request, journal: Journal):
        self.request, self.folder, self.journal = request, request.out, journal

    def add(self, design: Design, trajectory: Trajectory) -> None:
        """Write a finished design's files, and its record. trajectory: of this design alone (B = 1).

        Raises UserError or OSError, leaving no file of the design, where they cannot be written.
        """
        aatypes = trajectory.final_aatypes[0]
        names = outputs(design.id, self.request)
        try:
            self._write_structure(names[0], design, trajectory.final_atom37[0], aatypes)
            if self.request.trajectories:
                self._write_structure(names[1], design, trajectory.path_atom37[0], trajectory.path_aatypes[0])
                self._write_structure(names[2], design, trajectory.clean_atom37[0], trajectory.clean_aatypes[0])
            files = {name: sha256_of(self.folder / name) for name in names}
            done = {"status": "done", "files": files, "sequence": to_sequence(aatypes)}
            found = measures(self.request.task, design.given, trajectory.final_atom37[0], aatypes)
            flags = [found.pop("warning")] if "warning" in found else []
            self.journal.add(pending(design, self.request.task) | done | found | {"flags": flags})
        except BaseException:
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
            raise

    def fail(self, design: Design, error: str) -> None:
        """Raises UserError where not even that can be written."""
        with told_of(self.folder):
            self.journal.add(pending(design, self.request.task) | {"status": "failed", "error": error})

    def _write_structure(self, name: str, design: Design, atom37: torch.Tensor, aatypes: torch.Tensor) -> None:
        """atom37: [N, 37, 3] or [T, N, 37, 3] angstrom; aatypes: [N] or [T, N]."""
        given = design.given
        position = torch.arange(1, design.length + 1)
        if given and self.request.task.gives_frames:
            atom37 = atom37 + given.centre  # back to where the file has it
        write_pdb(
            self.folder / name,
            atom37,
            aatypes,
            given.chain_idx if given else torch.ones_like(position),
            given.numbers if given else position,
            atom_mask=_PLACED,
            chain_ids=given.chain_ids if given else None,
        )


def fasta_of(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Headers and sequences of a finished design: one, or one a chain where it has several."""
    designed = "designed" if record["sequence"].strip("X") else "none"  # the model has no sequence head
    what = "given" if record["task"] == Task.FORWARD_FOLDING.value else designed
    about = f"task={record['task']} sequence={what}"
    chains = record["chains"]
    if len(chains) < 2:
        return [(f"{record['id']} {about} length={record['length']}", record["sequence"])]
    entries, start = [], 0
    for chain, length in chains.items():
        sequence = record["sequence"][start : start + length]
        entries.append((f"{record['id']}.{chain} {about} design={record['id']} length={length}", sequence))
        start += length
    return entries


def _provenance(design: Design) -> dict[str, Any]:
    """What a folding task's record says beside the rest."""
    given = design.given
    if given is None:
        return {}
    lengths = {name: int((given.chain_idx == index).sum()) for index, name in enumerate(given.chain_ids, start=1)}
    return {"input": given.source, "chains": lengths, "notes": list(given.notes)}
