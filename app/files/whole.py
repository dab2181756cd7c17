"""Writing that survives a power cut, and that says what to do where it cannot be done."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from app.errors import UserError
from app.structure.atomic import replacing


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """What `write` puts into the file it is given becomes `path`, all of it or nothing, and is on the disk on return.

    Raises UserError where it cannot be written.
    """
    with told_of(path):
        with replacing(path) as aside, aside.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """A full disk or a folder that may not be written to becomes a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"{path}: cannot be written ({reason}): make room or rights there, or choose another out="
        ) from None


def refuse_unwritable(folder: Path) -> None:
    """Raises UserError where `folder` could not be made or written into. Makes nothing."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise UserError(f"out={folder}: {there} is not a folder: choose another out=")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"out={folder}: no right to write into {there}: choose another out=")


def sync_folder(folder: Path) -> None:
    """A file's new name lasts once its folder is on the disk too; some systems do not open folders."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
