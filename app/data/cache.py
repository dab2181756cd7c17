"""Preprocessed examples on disk: one safetensors file a source, which tells when it is damaged."""

import hashlib
import json
import time
from pathlib import Path

import safetensors
import safetensors.torch
from platformdirs import user_cache_path
from torch import Tensor

from app.structure.atomic import replacing

FORMAT_VERSION = 1
"""To be raised whenever reading or features change: files of other versions are not looked at."""

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
    text = json.dumps(record)
    with replacing(path) as aside:
        safetensors.torch.save_file(tensors, aside, metadata={"record": text, "digest": _digest(tensors, text)})


def load(path: Path) -> tuple[dict[str, Tensor], dict]:
    """What `save` wrote. Raises CacheMiss where the file is missing, cut short or altered."""
    try:
        content = path.read_bytes()  # a memory map would end this process if the file were cut short under it
        tensors = safetensors.torch.load(content)
        header_size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + header_size])["__metadata__"]
        text = metadata["record"]
        if metadata["digest"] != _digest(tensors, text):
            raise CacheMiss(f"{path}: the content does not match its checksum")
        return tensors, json.loads(text)
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


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()
