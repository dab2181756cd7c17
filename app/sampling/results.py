"""The folder of a run: structures, sequences, trajectories, and the manifest that accounts for every design."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from app import environment
from app.config.keys import one_line
from app.errors import UserError
from app.ops import account, select
from app.sampling.designs import Design
from app.sampling.fasta import entries
from app.sampling.findings import findings
from app.sampling.given import Skipped
from app.sampling.outputs import outputs
from app.sampling.request import Request
from app.sampling.settings import SamplerSettings
from app.sampling.trajectory import Trajectory
from app.structure.atomic import replacing
from app.structure.write import write_fasta

FORMAT = 1
"""Number of the manifest's layout; raised when it changes."""

MANIFEST, SEQUENCES = "manifest.json", "sequences.fasta"


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
        warnings: Sequence[str] = (),
    ):
        """Makes the folder with its first manifest. dtype: what the network computes in. language: which language model
        it reads, if any. warnings: what is to be known of all designs.

        Raises UserError where the folder holds another run or cannot be made.
        """
        check_new(request.out)
        self.request, self.sampler, self.folder = request, sampler, request.out
        self.kernels = select.News()
        self.compiled = self.cuda_graph = False  # whether they have served so far
        self.records: dict[str, dict[str, Any]] = {design.id: _asked_for(request, design) for design in designs}
        self._head = {
            "format": FORMAT,
            "task": request.task.value,
            "seed": request.seed,
            "settings": request.model_dump(mode="json") | {"sampler": sampler.model_dump(mode="json")},
            "versions": account.versions(),
            "environment": environment.report(),
            "checkpoint": _identity(request.ckpt),
            "language_model": language,
            "warnings": list(warnings),
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
        files = outputs(self.request, self.sampler, design, trajectory)
        try:
            for name, write in files.items():
                write(self.folder / name)
        except BaseException:
            for name in files:
                (self.folder / name).unlink(missing_ok=True)
            raise
        found = findings(self.request.sampled, design, trajectory)
        self.records[design.id] |= {"status": "done", "files": list(files)} | found

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
                write_fasta(self.folder / SEQUENCES, [entry for record in done for entry in entries(record)])
            with replacing(self.folder / MANIFEST) as aside:
                aside.write_text(json.dumps(manifest, indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"out={self.folder}: cannot be written ({error.strerror}); make room, or change out=..."
            ) from None


def _asked_for(request: Request, design: Design) -> dict[str, Any]:
    """What a design's record says from the start: nothing is known of it yet."""
    layout, given = design.layout, design.given
    record = {
        "id": design.id,
        "length": design.length,
        "chains": layout.chains,
        "task": request.task.value,
        "seed": design.seed,
        "status": "pending",
        "error": None,
        "files": [],
        "sequence": None,
        "flags": [],
        "designed": layout.count(design.designs_sequence(request.sampled)),
    }
    if given is not None:
        record |= {"input": given.source, "notes": list(given.notes)}
    if given is not None and given.kept is not None:
        record |= {"what": request.what or "both", "fixed": layout.spans(design.fixed)}
    return record


def _identity(checkpoint: Path | None) -> dict[str, str] | None:
    """Path and SHA-256 of the checkpoint."""
    if checkpoint is None:
        return None
    with checkpoint.open("rb") as file:
        return {"path": str(checkpoint), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
