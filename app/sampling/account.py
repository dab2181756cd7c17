"""The account of a run, kept by its first process: what was asked for = done + failed, whenever one looks."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from app.config.keys import one_line
from app.errors import UserError
from app.files.lock import Lock
from app.files.seal import is_whole, sealed
from app.files.whole import refuse_unwritable, told_of
from app.ops.account import kernels
from app.sampling import manifest
from app.sampling.designs import Design, share
from app.sampling.fasta import entries
from app.sampling.interrupt import Interrupted
from app.sampling.journal import DONE, Journals
from app.sampling.outputs import EVERYTHING, STEPS, STRUCTURES, TRAJECTORIES, places
from app.sampling.request import Request
from app.sampling.results import NOT_RUN, not_run
from app.structure.write import write_fasta

SEQUENCES = "sequences.fasta"

KEPT = "kept"
"""In the record of a design that is made again for more files: those that it has, with their hashes."""

SAVING = 0.02
"""Share of the time that goes into saving, at most: a manifest of many designs takes long, and is saved rarely."""

Record = dict[str, Any]


class Account:
    """A context, in which the folder is this process's alone. Designs that are not made count as failed, from the
    start on; at its end they say for what reason. They are made when the same run is asked for again.

    The manifest on the disk is true of the moment when it was saved; what came after it lies in the journals.
    """

    def __init__(
        self, request: Request, head: dict[str, Any], designs: Sequence[Design], tell: Callable[[list[Record]], None]
    ):
        """head: of the manifest. tell: is told of designs as they are done or fail."""
        self.request, self.folder, self.head, self.tell = request, request.out, head, tell
        self.records = {design.id: not_run(request, design) for design in designs}
        self.todo: list[Design] = list(designs)
        self.journals = Journals(self.folder)
        self.compiled = self.cuda_graph = False  # whether they have served so far
        self._makers: dict[str, int] = {}  # rank, by the design that it is to make
        self._designs = designs
        self._lock = Lock(self.folder, doing="designing")
        self._found: dict[str, Any] | None = None  # the manifest of an earlier process
        self._begun, self._due = False, 0.0

    def __enter__(self) -> "Account":
        """Takes the folder, and settles what of an earlier run stands: designs whose files are as they were written.

        Raises UserError, with nothing changed, where the folder holds another run or cannot be written into, or where
        another process is at work there.
        """
        manifest.check_folder(self.folder)
        refuse_unwritable(self.folder)
        self._lock.take()
        try:
            if (found := manifest.read(self.folder)) is not None:
                manifest.refuse_other(found, self.head, list(self.records), self.folder)
                self._found = found
            self._remove_leftovers()
        except BaseException:
            self._lock.release()
            raise
        return self

    def settle(self, track: Callable[[list[Design]], Iterable[Design]] = iter) -> None:
        """Find which designs of an earlier run stand. track: wraps the designs, to show progress."""
        if self._found is None:
            return
        told = [*self._found["designs"], *self.journals.new()]
        earlier: dict[str, Record] = {}
        for record in filter(is_whole, told):
            earlier[record["id"]] = _with_files_of(earlier.get(record["id"]), record)
        self.todo = []
        for design in track(list(self._designs)):
            if design.id in earlier:
                self.records[design.id] = self._settled(earlier[design.id])
            if self.records[design.id]["status"] != "done":
                self.todo.append(design)
        self._keep_machine(self._found)

    def begin(self) -> None:
        """The first manifest, with what stands; from here on journals tell of this run."""
        self._begun = True
        self.save()
        self.journals.remove()

    def shared_among(self, ranks: int) -> None:
        """The designs are, so that what a process leaves undone can be told by its reason."""
        self._makers = {one.id: rank for rank in range(ranks) for one in share(self.todo, rank, ranks)}

    def update(self) -> None:
        """Take in what the journals say, and save if it is time."""
        records = self.records
        news = [_with_files_of(records[one["id"]], one) for one in self.journals.new() if one["id"] in records]
        self.records |= {record["id"]: record for record in news}
        self.tell(news)
        if time.monotonic() >= self._due:
            self.save()

    def count(self, status: str) -> int:
        """Designs that are done or failed."""
        return sum(record["status"] == status for record in self.records.values())

    def save(self) -> None:
        """Write sequences.fasta, once there is one, and the manifest. Raises UserError where that cannot be."""
        began = time.monotonic()
        done = [record for record in self.records.values() if record["status"] == "done"]
        served = {"compiled": self.compiled, "cuda_graph": self.cuda_graph, "kernels": kernels()}
        counts = {"requested": len(self.records), "done": len(done), "failed": self.count("failed")}
        manifest.write(self.folder, served | self.head | counts | self._write_sequences(done), self.records.values())
        now = time.monotonic()
        self._due = now + (now - began) / SAVING

    def _write_sequences(self, done: Sequence[Record]) -> dict[str, dict[str, str]]:
        """Their file, or none where nothing is done; what the manifest says of it."""
        path = self.folder / SEQUENCES
        with told_of(path):
            if not done:
                path.unlink(missing_ok=True)
                return {"files": {}}
            write_fasta(path, [entry for record in done for entry in entries(record)])
            return {"files": {SEQUENCES: manifest.sha256_of(path)}}

    def __exit__(self, kind: type | None, error: BaseException | None, _) -> None:
        try:
            if self._begun:
                self.update()
                self._close(reason(error))
        finally:
            self._lock.release()

    def _close(self, why: str) -> None:
        for record in self.records.values():
            if record["error"] == NOT_RUN:
                ended = self.journals.ended.get(self._makers.get(record["id"], 0), DONE)
                told = f"not run: {why if ended == DONE else ended}"
                self.records[record["id"]] = sealed(record | {"error": told})
        self.save()
        self.journals.remove_ended()

    def _settled(self, record: Record) -> Record:
        """What an earlier run's record of a design comes to: itself, where the design is done with all files that are
        asked for now; else one of which nothing is known but files that it has besides, as `kept`. Files that are no
        longer as they were are left out."""
        blank, files = self.records[record["id"]], _files_of(record)
        same = all(record.get(key) == blank[key] for key in ("length", "chains", "task", "seed"))
        if not same or not blank.keys() <= record.keys():
            return blank
        possible = places(self.request.model_copy(update=EVERYTHING), record["id"])
        whole = {name: files[name] for name in possible.values() if name in files and self._is_whole(name, files[name])}
        wanted = set(places(self.request, record["id"]).values())
        if record.get("status") == "done" and wanted <= whole.keys():
            return sealed(record | {"files": whole})
        kept = {name: digest for name, digest in whole.items() if name not in wanted}
        return sealed(blank | {KEPT: kept}) if kept else blank

    def _is_whole(self, name: str, sha256: str) -> bool:
        try:
            return manifest.sha256_of(self.folder / name) == sha256
        except OSError:
            return False

    def _keep_machine(self, found: dict[str, Any]) -> None:
        """What designs that stand were made with stays in the manifest: as it was, where there is none to make, else
        among `earlier`."""
        before = {key: found.get(key) for key in manifest.MACHINE}
        if not self.todo:
            self.head |= before | {"earlier": found.get("earlier", [])}
        elif len(self.todo) < len(self.records):
            self.head["earlier"] = [*(one for one in found.get("earlier", []) if one != before), before]

    def _remove_leftovers(self) -> None:
        """What a killed process left half-written."""
        with told_of(self.folder):
            for folder in (self.folder, *(self.folder / name for name in (STRUCTURES, TRAJECTORIES, STEPS))):
                for leftover in folder.glob(".*.tmp"):
                    leftover.unlink(missing_ok=True)


def _with_files_of(before: Record | None, record: Record) -> Record:
    """A record that takes another's place, with the files that one had besides; its own, where the design is done."""
    has = _files_of(record)
    besides = {name: digest for name, digest in _files_of(before or {}).items() if name not in has}
    if not besides or not is_whole(record):
        return record
    return sealed(record | ({"files": besides | has} if record.get("status") == "done" else {KEPT: besides}))


def _files_of(record: Record) -> dict[str, Any]:
    """With what it says of their hashes, those that were kept included. A record may say anything."""
    said = [record.get(key) for key in (KEPT, "files")]
    return {name: digest for files in said if isinstance(files, dict) for name, digest in files.items()}


def reason(error: BaseException | None) -> str:
    """Why designs were not made."""
    if error is None:
        return "left out"
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted"
    return one_line(error) if isinstance(error, UserError) else f"stopped by {type(error).__name__}"
