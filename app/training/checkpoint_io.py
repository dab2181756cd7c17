"""How checkpoints get onto the disk and back: Lightning's CheckpointIO."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from app.structure.atomic import replacing
from app.training.files import told_of, write_whole


class WholeFiles(CheckpointIO):
    """Checkpoints appear whole or not at all. What a run resumes from was read and checked before: `state`."""

    def __init__(self, state: dict[str, Any] | None = None):
        self._state = state

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write_whole(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: str | Path, *_args, **_kwargs) -> dict[str, Any]:
        state, self._state = self._state, None  # large, and needed once
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """`target` becomes another name of the file `source`, or a copy where the file system has no such thing."""
    with told_of(target), replacing(target) as aside:
        try:
            os.link(source, aside)
        except OSError:
            shutil.copyfile(source, aside)
