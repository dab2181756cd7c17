"""How checkpoints get onto the disk and back: Lightning's CheckpointIO."""

import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from app.errors import UserError
from app.files.whole import sync_folder, write_whole
from app.structure.atomic import replacing
from app.training.seal import seal


class WholeFiles(CheckpointIO):
    """Checkpoints appear whole or not at all, their checksum inside.

    state: what a run resumes from, read and checked before.
    """

    def __init__(self, state: dict[str, Any] | None = None):
        self._state = state
        self.failed: UserError | None = None
        """Why the last one could not be written. It is for the caller to raise on all ranks: here only the one that
        writes would, and the others would wait for it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        self.failed = None
        try:
            write_whole(Path(path), lambda file: _write(checkpoint, file))
        except UserError as error:
            self.failed = error

    def load_checkpoint(self, path: str | Path, *_args, **_kwargs) -> dict[str, Any]:
        state, self._state = self._state, None  # large, and needed once
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def _write(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's writer stumbles over a write that failed and hides why it did
        raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    seal(file)


def link(source: Path, target: Path) -> None:
    """`target` becomes another name of the file `source`, or a copy where the file system has no such thing."""
    try:
        with replacing(target) as aside:
            os.link(source, aside)
        sync_folder(target.parent)
    except OSError:
        with source.open("rb") as whole:
            write_whole(target, lambda file: shutil.copyfileobj(whole, file))
