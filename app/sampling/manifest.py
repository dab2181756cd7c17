"""manifest.json: what was asked for, what it is made with, and what has become of every design."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from app.config.diff import differences
from app.errors import UserError
from app.files.listed import refuse_unlisted
from app.files.manifest import COPY, MANIFEST, is_emptied
from app.files.seal import is_whole, sealed
from app.files.whole import write_whole
from app.sampling.journal import PATTERN

FORMAT = 3
"""Number of the manifest's layout; raised when it changes."""

MAY_CHANGE = (
    "out", "ckpt", "input", "device", "devices", "num_nodes", "formats", "trajectories", "step_records",
    "max_batch_size", "max_residues_squared", "precision", "compile", "cuda_graph", "progress_bar", "report",
    "report_viewer", "temperature",
)  # fmt: skip
"""Settings that say where designs are made, how many at once, and what is written of them, but not what they are.
Checkpoint and input count by their content, precision by what it comes to on the device, temperature in the sampler."""

MACHINE = ("versions", "environment", "device", "devices", "kernels", "compiled", "cuda_graph")
"""What a run can be gone on with in another way."""

_SETTLED_BY_THEMSELVES = {".DS_Store", ".lock", COPY}


def check_folder(folder: Path) -> None:
    """Raises UserError where the folder holds something else than a run of designs, or is none. Makes nothing."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder}: is a file, give a new folder with out=...")
    if folder.is_dir():
        refuse_unlisted(folder, "out=")
    if read(folder) is None and folder.is_dir():
        temporary = {path.name for pattern in (f".*{MANIFEST}.*.tmp", PATTERN) for path in folder.glob(pattern)}
        held = sorted({entry.name for entry in folder.iterdir()} - temporary - _SETTLED_BY_THEMSELVES)
        if held:
            what = held[0] + (", ..." if held[1:] else "")
            raise UserError(
                f"out={folder}: holds {what}, which would be mixed up with this run: give a new folder with out=..."
            )


def read(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest, or the copy of it where it is missing or damaged; None where there is neither, or
    where the copy is all that was left of a folder that was emptied. Raises UserError where what is there is of no use.
    """
    if folder.is_dir() and is_emptied(folder):
        return None
    errors = []
    for name in (MANIFEST, COPY):
        try:
            if (found := _read(folder / name)) is not None:
                return found
        except UserError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return None


def _read(path: Path) -> dict[str, Any] | None:
    cure = "give a new folder with out=..."
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON: it was cut off or altered"
        raise UserError(f"{path}: cannot be read, {reason}; {cure}") from None
    layout = found.get("format") if isinstance(found, dict) else None
    if layout in (1, 2):
        raise UserError(f"{path}: is of an older run, without hashes to verify what it made: {cure}")
    if layout != FORMAT:
        raise UserError(f"{path}: is no manifest of this program, or of a later version of it: {cure}")
    designs = found.pop("designs", None)
    if not is_whole(found) or not isinstance(designs, list):
        raise UserError(f"{path}: it was altered, or a part of it is missing; {cure}")
    return found | {"designs": designs}


def write(folder: Path, head: dict[str, Any], records: Iterable[dict[str, Any]]) -> None:
    """head: all but the designs, which get a line each; it is sealed. Raises UserError where it cannot be written."""
    designs = ",\n  ".join(json.dumps(record) for record in records)  # with an indent json is ten times as slow
    text = json.dumps(sealed(head), indent=1).removesuffix("\n}")
    whole = f'{text},\n "designs": [\n  {designs}\n ]\n}}\n'.encode()
    for name in (COPY, MANIFEST):
        write_whole(folder / name, lambda file: file.write(whole))


def refuse_other(old: dict[str, Any], new: dict[str, Any], designs: Sequence[str], folder: Path) -> None:
    """Raises UserError, with the differences, where another run than that of the manifest `old` is asked for.

    new: as `old`, but for its designs. designs: the ids of those.
    """
    said = [f"{key}: {before} -> {now}" for key, before, now in differences(_what_counts(old), _what_counts(new))]
    if sorted(old["inputs"].values()) != sorted(new["inputs"].values()):
        changed = differences(old["inputs"], new["inputs"])
        said += [f"input {name}: {_short(before)} -> {_short(now)}" for name, before, now in changed]
    before = [record["id"] for record in old["designs"] if is_whole(record)]  # others are made again
    if not said and not set(before) <= set(designs):
        said = [f"{len(before)} designs, {before[0]}, ... -> {len(designs)}, {designs[0]}, ..."]
    if said:
        raise UserError(
            f"out={folder}: holds a run that was asked for something else: {'; '.join(said)}: type what it was begun"
            " with, or give a new folder with out=..."
        )


def _what_counts(manifest: dict[str, Any]) -> dict[str, Any]:
    """All that decides over designs, but for the inputs."""
    settings = {key: value for key, value in manifest["settings"].items() if key not in MAY_CHANGE}
    checkpoint, language = manifest.get("checkpoint") or {}, manifest.get("language_model") or {}
    return settings | {
        "precision": manifest.get("precision"),
        "ckpt": _short(checkpoint.get("sha256")),
        "esm": _short(language.get("sha256")),
        "esm.precision": language.get("precision"),
        "environment.matmul_precision": manifest["environment"].get("matmul_precision"),
    }


def _short(digest: Any) -> str:
    return f"sha256 {digest[:16]}" if isinstance(digest, str) else str(digest)


def sha256_of(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inputs_of(path: Path, files: Iterable[Path]) -> dict[str, str]:
    """The sha256 of each file of a run's input, by its place in the folder `path`, or by its name if `path` is it."""
    return {(file.relative_to(path).as_posix() if file != path else file.name): sha256_of(file) for file in files}
