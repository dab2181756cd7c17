"""The folder of a run: structures, sequences, trajectories, and the manifest that accounts for every design."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app import environment
from app.chem import atoms
from app.chem.residues import to_sequence
from app.config.keys import one_line
from app.errors import UserError
from app.ops import account, select
from app.sampling.designs import Design
from app.sampling.given import Skipped
from app.sampling.inputs import Task
from app.sampling.measures import measures
from app.sampling.request import Request
from app.sampling.settings import SamplerSettings
from app.sampling.trajectory import Trajectory
from app.structure.atomic import replacing
from app.structure.write import write_fasta, write_pdb

FORMAT = 1
"""Number of the manifest's layout; raised when it changes."""

_PLACED = np.isin(np.arange(atoms.NUM_ATOM37), (atoms.N, atoms.CA, atoms.C, atoms.O, atoms.CB))

MANIFEST, SEQUENCES, STRUCTURES, TRAJECTORIES = "manifest.json", "sequences.fasta", "structures", "trajectories"


def check_new(folder: Path) -> None:
    """Raises UserError where the folder holds anything, such as another run, or cannot be made. Makes nothing."""
    cure = "give a new folder with out=..."
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder}: is a file, {cure}")
    held = sorted(entry.name for entry in folder.iterdir() if entry.name != ".DS_Store") if folder.is_dir() else []
    if held:
        what = "another run" if MANIFEST in held else held[0] + (", ..." if held[1:] else "")
        raise UserError(f"out={folder}: holds {what}, which would be mixed up with this run: {cure}")


class Results:
    """What has become of the designs so far. Every file appears whole, and the manifest is true at any moment.

    A context: at its end no design is left pending; those that were not run, whatever the reason, count as failed.
    """

    def __init__(
        self,
        request: Request,
        sampler: SamplerSettings,
        designs: Sequence[Design],
        skipped: Sequence[Skipped] = (),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        language: dict[str, str] | None = None,
    ):
        """Makes the folder with its first manifest. dtype: what the network computes in. language: which language model
        it reads, if any.

        Raises UserError where the folder holds another run or cannot be made.
        """
        check_new(request.out)
        self.request, self.folder = request, request.out
        self.kernels = select.News()
        self.compiled = self.cuda_graph = False  # whether they have served so far
        self.records: dict[str, dict[str, Any]] = {
            design.id: {
                "id": design.id,
                "length": design.length,
                "task": request.task.value,
                "seed": design.seed,
                "status": "pending",
                "error": None,
                "files": [],
                "sequence": None,
            }
            | _provenance(design)
            for design in designs
        }
        self._head = {
            "format": FORMAT,
            "task": request.task.value,
            "seed": request.seed,
            "settings": request.model_dump(mode="json") | {"sampler": sampler.model_dump(mode="json")},
            "versions": account.versions(),
            "environment": environment.report(),
            "checkpoint": _identity(request.ckpt),
            "language_model": language,
            "device": str(device),
            "precision": str(dtype).removeprefix("torch."),
        }
        self._tail = {"skipped": [{"input": one.input, "reason": one.reason} for one in skipped]}
        self.save()

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, kind, error, _) -> None:
        why = "interrupted" if kind is KeyboardInterrupt else f"stopped by {kind.__name__}" if kind else "left out"
        if isinstance(error, UserError):
            why = one_line(error)
        for record in self.records.values():
            if record["status"] == "pending":
                record |= {"status": "failed", "error": f"not run: {why}"}
        self.save()

    def count(self, status: str) -> int:
        """Designs that are done, failed or pending."""
        return sum(record["status"] == status for record in self.records.values())

    def add(self, design: Design, trajectory: Trajectory) -> None:
        """Write a finished design's files and record them. trajectory: of this design alone (B = 1).

        Raises UserError or OSError, leaving no file of the design, where they cannot be written.
        """
        aatypes = trajectory.final_aatypes[0]
        files = {}
        try:
            files[f"{STRUCTURES}/{design.id}.pdb"] = trajectory.final_atom37[0], aatypes
            if self.request.trajectories:
                files[f"{TRAJECTORIES}/{design.id}_path.pdb"] = trajectory.path_atom37[0], trajectory.path_aatypes[0]
                files[f"{TRAJECTORIES}/{design.id}_clean.pdb"] = trajectory.clean_atom37[0], trajectory.clean_aatypes[0]
            for name, (atom37, residues) in files.items():
                self._write_structure(name, design, atom37, residues)
        except BaseException:
            for name in files:
                (self.folder / name).unlink(missing_ok=True)
            raise
        self.records[design.id] |= {"status": "done", "files": list(files), "sequence": to_sequence(aatypes)}
        self.records[design.id] |= measures(self.request.task, design.given, trajectory.final_atom37[0], aatypes)

    def fail(self, design: Design, error: str) -> None:
        self.records[design.id] |= {"status": "failed", "error": error}

    def save(self) -> None:
        """Write sequences.fasta, once there is one, and the manifest. Raises UserError where that cannot be."""
        done = [record for record in self.records.values() if record["status"] == "done"]
        counts = {
            "requested": len(self.records),
            "done": len(done),
            "failed": self.count("failed"),
        }
        served = {"compiled": self.compiled, "cuda_graph": self.cuda_graph, "kernels": account.kernels()}
        manifest = self._head | served | counts | self._tail | {"designs": list(self.records.values())}
        try:
            if done:
                write_fasta(self.folder / SEQUENCES, [entry for record in done for entry in self._fasta(record)])
            with replacing(self.folder / MANIFEST) as aside:
                aside.write_text(json.dumps(manifest, indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"out={self.folder}: cannot be written ({error.strerror}); make room, or change out=..."
            ) from None

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

    def _fasta(self, record: dict) -> list[tuple[str, str]]:
        """One entry a design, or one a chain where a design has several."""
        designed = "designed" if record["sequence"].strip("X") else "none"  # the model has no sequence head
        what = "given" if self.request.task is Task.FORWARD_FOLDING else designed
        about = f"task={record['task']} sequence={what}"
        chains = record.get("chains", {})
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


def _identity(checkpoint: Path | None) -> dict[str, str] | None:
    """Path and SHA-256 of the checkpoint."""
    if checkpoint is None:
        return None
    with checkpoint.open("rb") as file:
        return {"path": str(checkpoint), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
