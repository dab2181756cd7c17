"""Preprocessed examples on disk: one safetensors file a source, which tells when it is damaged.

Its metadata hold the SHA-256 of the whole file, as the file is with zeros in place of that.
"""

import hashlib
import json
import time
from pathlib import Path

import safetensors
import safetensors.torch
from platformdirs import user_cache_path
from torch import Tensor

from app.structure.atomic import replacing

FORMAT_VERSION = 2
"""To be raised whenever reading or features change: files of other versions are not looked at."""

_BLANK = b"0" * 64
_FIELD = b'"sha256":"'  # in a header's JSON; a quotation mark inside of a string would be escaped

_LEFT_BEHIND = 3600  # age in seconds from which the aside file of a killed run is removed


class CacheMiss(Exception):
    """The file is not there, or it is not what was written."""


def default_folder() -> Path:
    """Where preprocessed data goes unless told otherwise."""
    return user_cache_path("trunkline", appauthor=False) / "structures"


def key_of(content: bytes, *settings: str) -> str:
    """Name of the cached form of a source with this content, made under these settings by this version."""
    digest = hashlib.sha256(content)
    digest.update(json.dumps([FORMAT_VERSION, *settings]).encode())
    return digest.hexdigest()


def file_of(folder: Path, key: str) -> Path:
    return folder / f"v{FORMAT_VERSION}" / key[:2] / f"{key}.safetensors"


def save(path: Path, tensors: dict[str, Tensor], record: dict) -> None:
    """Write tensors and a record of plain data (JSON), whole or not at all."""
    with replacing(path) as aside:
        safetensors.torch.save_file(tensors, aside, metadata={"record": json.dumps(record), "sha256": _BLANK.decode()})
        with aside.open("r+b") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            header = file.read(int.from_bytes(file.read(8), "little"))
            file.seek(8 + header.index(_FIELD + _BLANK) + len(_FIELD))
            file.write(digest.encode())


def load(path: Path) -> tuple[dict[str, Tensor], dict]:
    """What `save` wrote. Raises CacheMiss where the file is missing, cut short or altered."""
    try:
        content = path.read_bytes()  # a memory map would end this process if the file were cut short under it
        header = content[8 : 8 + int.from_bytes(content[:8], "little")]
        place = 8 + header.index(_FIELD) + len(_FIELD)
        if content[place : place + len(_BLANK)].decode() != _digest(memoryview(content), place):
            raise CacheMiss(f"{path}: the content does not match its checksum")
        record = json.loads(json.loads(header)["__metadata__"]["record"])
        return safetensors.torch.load(content), record
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise CacheMiss(f"{path}: {error}") from error


def remove_leftovers(folder: Path) -> None:
    """Delete what writers that were killed left beside their targets."""
    for aside in folder.glob(f"v{FORMAT_VERSION}/*/.*.tmp"):
        try:
            if time.time() - aside.stat().st_mtime > _LEFT_BEHIND:
                aside.unlink()
        except OSError:
            pass  # another process was faster


def _digest(content: memoryview, place: int) -> str:
    """Of the file as it was before its checksum was written at `place`."""
    digest = hashlib.sha256(content[:place])
    digest.update(_BLANK)
    digest.update(content[place + len(_BLANK) :])
    return digest.hexdigest()
