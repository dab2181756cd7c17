"""How the jobs of a sweep stand: a table for people, sweep.json for what reads the results."""

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from app.files.json_object import json_object
from app.files.whole import write_whole
from app.sweep.jobs import Job, Sweep
from app.training.run_folder import RunFolder


@dataclass(frozen=True)
class Standing:
    """Of one job: its exit status once it has ended by itself, otherwise what there is to say of it."""

    status: int | None = None
    told: str = "not begun"
    slurm_job: str | None = None  # what it was last submitted as

    @classmethod
    def ended(cls, status: int, slurm_job: str | None = None) -> "Standing":
        return cls(status, _in_words(status), slurm_job)

    @property
    def failed(self) -> bool:
        return self.status not in (None, 0)


def _in_words(status: int) -> str:
    if status == 0:
        return "done"
    numbers = {number.value for number in signal.Signals}
    return f"ended by {signal.Signals(status - 128).name}" if status - 128 in numbers else f"failed ({status})"


def record_of(sweep: Sweep) -> Path:
    return sweep.folder / "sweep.json"


def write(sweep: Sweep, standings: Mapping[Job, Standing]) -> None:
    """sweep.json: of each job what is swept, how it stands, its `best` and its folder.

    Jobs of earlier commands stay in it.
    """
    names = {job.name for job in standings}
    jobs = [entry for entry in _recorded(sweep) if entry["job"] not in names] + [
        {"job": job.name, "overrides": list(job.swept), "status": standing.status, "told": standing.told}
        | {"best": best_of(job), "folder": str(job.folder), "slurm_job": standing.slurm_job}
        for job, standing in standings.items()
    ]
    sweep.folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"jobs": jobs}, indent=2) + "\n"
    write_whole(record_of(sweep), lambda file: file.write(text.encode()))


def slurm_jobs(sweep: Sweep) -> dict[str, str]:
    """What each job was last submitted as, by its name, from sweep.json where there is one."""
    return {entry["job"]: entry["slurm_job"] for entry in _recorded(sweep) if entry["slurm_job"]}


def _recorded(sweep: Sweep) -> list[dict[str, Any]]:
    """The entries of sweep.json; none where there is no such file, nor in one that is not of a sweep."""
    try:
        entries = json.loads(record_of(sweep).read_text())["jobs"]
        return [entry for entry in entries if {"job", "slurm_job"} <= entry.keys()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def best_of(job: Job) -> dict[str, Any] | None:
    """The `best` of a job's summary.json."""
    return (json_object(RunFolder(job.folder).summary) or {}).get("best")


def table(sweep: Sweep, standings: Mapping[Job, Standing]) -> Table:
    shown = Table("job", "", "best", f"folder in {sweep.folder}")
    for job, standing in standings.items():
        best = best_of(job)
        value = f"{best['metric']} {best['value']:.4g} at step {best['step']}" if best else ""
        cells = (" ".join(job.swept), standing.told, value, job.name)
        shown.add_row(*(Text(cell, overflow="fold") for cell in cells))  # brackets are no markup
    return shown
