"""Reading checkpoints that verify, without running anything in them: torch's weights-only unpickler, its errors made
readable."""

import logging
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import torch

from app.errors import UserError
from app.training.seal import Damaged, verify

log = logging.getLogger(__name__)


class Refused(UserError):
    """The file names a class or function that may not be in a checkpoint."""


def load(path: str | Path, stand_ins: Sequence[tuple[object, str]] = ()) -> dict:
    """The checkpoint's dict: plain containers and CPU tensors.

    stand_ins: (object, qualified name): what to build in place of a class that the file names. Anything else that it
    names is refused before it is looked up.

    Raises UserError for a file that is missing or no checkpoint; Damaged for one that is cut off or does not verify, of
    which nothing is read; Refused as said.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the checkpoint in it, for a run {path}/checkpoints/last.ckpt")
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file; give the path of one")
    try:
        with path.open("rb") as file:  # once: a run may put a newer one in its place meanwhile
            sealed = verify(file, path)
            file.seek(0)
            checkpoint = _unpickled(file, path, stand_ins)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): see to its rights, or its disk") from None
    except MemoryError:
        raise UserError(f"{path}: cannot be read, this machine has too little memory for it") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint: give one that training wrote")
    if not sealed and "trunkline" in checkpoint:
        log.warning("%s: holds no checksum, as of an older Trunkline or another program; it is taken as it is", path)
    return checkpoint


def _unpickled(file: BinaryIO, path: Path, stand_ins: Sequence[tuple[object, str]]) -> object:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(stand_ins)):
            warnings.simplefilter("ignore")  # torch's own on odd pickles: what is wrong is told below
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        for marker in ("Unsupported global: GLOBAL ", "unsupported GLOBAL ", "Unsupported class "):
            if marker in reason:
                name = reason.split(marker)[1].split()[0]
                raise Refused(f"{path}: refused, it names {name}, which no checkpoint needs; nothing was run") from None
        raise Refused(f"{path}: refused, it is not a plain checkpoint; nothing in it was run") from None
    except Exception as error:  # torch asserts, unpacks and indexes its way through a damaged file
        raise Damaged(
            f"{path}: cannot be read ({type(error).__name__}): it is cut off, damaged or no checkpoint; copy it again"
        ) from None
