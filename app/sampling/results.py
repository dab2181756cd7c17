"""The files of designs, and what is recorded of each."""

from typing import Any

from app.files.seal import sealed
from app.files.whole import told_of
from app.sampling.designs import Design
from app.sampling.findings import findings
from app.sampling.journal import Journal
from app.sampling.manifest import sha256_of
from app.sampling.outputs import outputs
from app.sampling.request import Request
from app.sampling.settings import SamplerSettings
from app.sampling.trajectory import Trajectory

NOT_RUN = "not run yet"
"""Error of a design that is still to be made. It counts as failed, so that requested = done + failed at any moment."""


class Results:
    """Writes what has become of designs, and journals it. Every file appears whole."""

    def __init__(self, request: Request, sampler: SamplerSettings, journal: Journal):
        self.request, self.sampler, self.folder, self.journal = request, sampler, request.out, journal

    def add(self, design: Design, trajectory: Trajectory) -> None:
        """Write a finished design's files, and its record. trajectory: of this design alone (B = 1).

        Raises UserError or OSError, leaving no file of the design, where they cannot be written.
        """
        files = outputs(self.request, self.sampler, design, trajectory)
        try:
            for name, write in files.items():
                write(self.folder / name)
            done = {"status": "done", "error": None, "files": {name: sha256_of(self.folder / name) for name in files}}
            found = findings(self.request.sampled, design, trajectory)
            self.journal.add(sealed(not_run(self.request, design) | done | found))
        except BaseException:
            for name in files:
                (self.folder / name).unlink(missing_ok=True)
            raise

    def fail(self, design: Design, error: str) -> None:
        """Raises UserError where not even that can be written."""
        with told_of(self.folder):
            self.journal.add(sealed(not_run(self.request, design) | {"error": error}))


def not_run(request: Request, design: Design) -> dict[str, Any]:
    """What a design's record says from the start, sealed: nothing is known of it yet."""
    layout, given = design.layout, design.given
    record = {
        "id": design.id,
        "length": design.length,
        "chains": layout.chains,
        "task": request.task.value,
        "seed": design.seed,
        "status": "failed",
        "error": NOT_RUN,
        "files": {},
        "sequence": None,
        "flags": [],
        "designed": layout.count(design.designs_sequence(request.sampled)),
    }
    if given is not None:
        record |= {"input": given.source, "notes": list(given.notes)}
    if given is not None and given.kept is not None:
        record |= {"what": request.what or "both", "fixed": layout.spans(design.fixed)}
    return sealed(record)
