"""The manifest that infer.py left in a folder, as whoever looks at its designs reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import UserError
from app.files.json_object import json_object
from app.files.manifest import COPY, MANIFEST, is_emptied
from app.files.seal import is_sealed, is_whole

LARGEST = 2**30
"""Bytes; what claims to be larger is not read."""


def manifest_of(folder: Path, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """What the manifest of a folder says, or its copy; {} where there is neither, as in any folder of structures, and
    where the copy is all that was left of a folder that was emptied. `designs` is a list, of whatever a file may hold.

    say: takes a line where the copy serves. Raises UserError: a manifest that is none, and no copy of it.
    """
    path = folder / MANIFEST
    there = path.exists()
    if there and (found := _read(path)) is not None:
        return found
    if not is_emptied(folder) and (found := _read(folder / COPY)) is not None:
        say(f"{MANIFEST}: {'damaged' if there else 'not there'}; its copy, {COPY}, serves")
        return found
    if there:
        raise UserError(
            f"{path}: damaged, or not the manifest of a run: remove it to look at the structure files alone"
        )
    return {}


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file() or path.stat().st_size > LARGEST:
        return None
    found = json_object(path)
    if found is None or not isinstance(found.get("designs"), list):
        return None
    head = {key: value for key, value in found.items() if key != "designs"}
    return found if is_whole(head) or not is_sealed(head) else None
