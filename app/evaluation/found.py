"""The designs that a folder holds: those that its manifest names, or every structure file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.data.find import find_files
from app.errors import UserError
from app.evaluation.manifest import manifest_of
from app.files.listed import refuse_unlisted
from app.structure.parse import SUFFIXES, format_of, stem_of

STRUCTURES, TRAJECTORIES, EVALUATION = "structures", "trajectories", "evaluation"

REPEATED = "another design has this id"
"""Why all but the first design of an id have no numbers: whatever is known of a design goes by its id."""

ALTERED = "the file is not as the manifest has it"
"""The flag of a design whose structure was changed, by whomever, since it was made."""


@dataclass(frozen=True)
class Found:
    """A design. Where there is no structure of it, `missing` says why."""

    id: str
    path: Path | None
    relative: str = ""  # the path in the folder, as the manifest has it
    record: dict[str, Any] = field(default_factory=dict)  # the manifest's
    missing: str = ""


def find_designs(folder: Path, say: Callable[[str], None] = lambda line: None) -> tuple[list[Found], dict[str, Any]]:
    """The designs in their order, and the manifest ({} where there is none).

    say: takes a line where a copy of the manifest serves, and for what is passed over. Raises UserError: no such
    folder, no design in it, a manifest that is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a run, or one of structure files ({SUFFIXES})")
    refuse_unlisted(folder)
    manifest = manifest_of(folder, say)
    designs = list(_of_manifest(folder, manifest) if manifest else _of_files(folder, say))
    if not designs:
        what = "its manifest names no design" if manifest else f"it holds no structure file ({SUFFIXES})"
        raise UserError(f"{folder}: nothing to evaluate: {what}")
    return designs, manifest


def inside(folder: Path, name: str) -> Path | None:
    """The path of this name in the folder, whether or not it is there. None: it leads out of the folder, or no file can
    have such a name."""
    path = folder / name
    try:
        path.is_file()  # what a file system cannot even look up (too long, a NUL) raises here
        return path if path.resolve().is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        return None


def files_of(record: dict[str, Any], folder: Path) -> list[str]:
    """The paths in the folder that a manifest's record names: keys with hashes, or, in the first format, a list."""
    named = record.get("files")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, dict | list) else []
    return [name for name in names if inside(folder, name)]


def structure_of(record: dict[str, Any], folder: Path) -> str | None:
    """The structure among these files: one that is there before one that is not, mmCIF before PDB."""
    own = [name for name in files_of(record, folder) if name.startswith(f"{STRUCTURES}/") and format_of(name)]
    return min(own, key=lambda name: (not (folder / name).is_file(), preference(name)), default=None)


def is_altered(record: dict[str, Any], name: str, sha256: str) -> bool:
    """Whether the manifest's record has another SHA-256 of the file of this name than it has."""
    files = record.get("files")
    return isinstance(files, dict) and files.get(name, sha256) != sha256


def _of_manifest(folder: Path, manifest: dict[str, Any]) -> Iterator[Found]:
    seen: set[str] = set()
    for place, record in enumerate(manifest["designs"], start=1):
        if not isinstance(record, dict) or not isinstance(record.get("id"), str):
            yield Found(f"record {place} of the manifest", None, missing="no record of a design: it was altered")
            continue
        if record["id"] in seen:
            yield Found(record["id"], None, record=record, missing=REPEATED)
            continue
        seen.add(record["id"])
        name = structure_of(record, folder)
        if name is not None and (folder / name).is_file():
            yield Found(record["id"], folder / name, name, record)
        elif record.get("status") == "done":
            yield Found(record["id"], None, record=record, missing="its structure file is not there")
        else:
            reason = record.get("error") or record.get("status") or "not made"
            yield Found(record["id"], None, record=record, missing=f"not made: {' '.join(str(reason).split())[:300]}")


def structures_in(folder: Path, say: Callable[[str], None], option: str = "") -> list[str]:
    """The structure files of a folder, as paths in it. say: takes a line for each folder in it that cannot be listed.

    option: that named the folder, for these lines. Raises UserError where the folder itself may not be listed.
    """
    refuse_unlisted(folder, f"{option} " if option else "")
    found = find_files(folder)
    for name, reason in found.unreadable:
        say(f"{option}{': ' if option else ''}passed over: {name}: {reason}")
    return found.names


def _of_files(folder: Path, say: Callable[[str], None]) -> Iterator[Found]:
    """A design in two formats is one."""
    names = [name for name in structures_in(folder, say) if name.split("/")[0] not in (EVALUATION, TRAJECTORIES)]
    by_id: dict[str, list[str]] = {}
    for name in names:
        above, slash, last = name.rpartition("/")
        by_id.setdefault(above + slash + stem_of(last), []).append(name)
    for design, files in by_id.items():
        name = min(files, key=preference)
        yield Found(design, folder / name, name)


def preference(name: str) -> tuple[bool, str]:
    """mmCIF first: it holds what PDB files cannot, such as large coordinates."""
    return format_of(name) != "mmcif", name
