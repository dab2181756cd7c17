"""A checkpoint's checksum, inside the file: the comment of the zip archive that torch.save writes.

The last 81 bytes are `trunkline sha256 ` and the hex digest of all bytes before them, so `head -c -81 FILE | sha256sum`
verifies a file without this program, and torch.load reads it as any other. A zip archive says how long its comment is:
one whose seal was cut off does not pass for one that never had any.
"""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

from app.errors import UserError

MARK = b"trunkline sha256 "
LENGTH = len(MARK) + 2 * hashlib.sha256().digest_size

_FIRST = b"PK\x03\x04"  # of an archive's first member
_END = b"PK\x05\x06"  # of the record that ends an archive, 22 bytes with an empty comment; its last two count that
_END_SIZE = 22


class Damaged(UserError):
    """The file is not what was written: cut off, altered, or unreadable."""


def seal(file: BinaryIO) -> None:
    """Add its checksum to a zip archive that was just written; the file is open for reading and writing."""
    file.seek(-2, os.SEEK_END)
    file.write(LENGTH.to_bytes(2, "little"))
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0, os.SEEK_END)
    file.write(MARK + digest.encode())


def verify(file: BinaryIO, path: Path) -> bool:
    """Whether the file, open for reading, has a checksum. Raises Damaged where it is not what was written.

    One without, as other programs write it, is held to the CRC-32 that an archive keeps of each of its members.
    """
    tail = _tail(file, LENGTH)
    if tail.startswith(MARK):
        if _digest(file, len(tail)) != tail.removeprefix(MARK):
            raise _damaged(path, "it does not match the checksum inside it")
        return True
    if _starts_as_archive(file):
        end = _tail(file, _END_SIZE)
        if not (end.startswith(_END) and end.endswith(b"\0\0")):
            raise _damaged(path, "its end is missing")
        if part := _bad_member(file):
            raise _damaged(path, f"its part {part} does not match its CRC-32")
    return False


def _damaged(path: Path, how: str) -> Damaged:
    return Damaged(f"{path}: damaged, {how}: it was cut off or altered; copy it again or take another")


def _tail(file: BinaryIO, length: int) -> bytes:
    file.seek(-min(length, file.seek(0, os.SEEK_END)), os.SEEK_END)
    return file.read()


def _digest(file: BinaryIO, less: int) -> bytes:
    """Of all but the last `less` bytes."""
    digest, left = hashlib.sha256(), file.seek(0, os.SEEK_END) - less
    file.seek(0)
    while chunk := file.read(min(left, 1 << 20)):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()


def _starts_as_archive(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(len(_FIRST)) == _FIRST


def _bad_member(file: BinaryIO) -> str | None:
    """The first member that differs from its CRC-32, or a word for an archive that cannot be read at all."""
    try:
        with zipfile.ZipFile(file) as archive:
            if any(member.CRC for member in archive.infolist()):  # torch can be told to leave them out
                return archive.testzip()
    except Exception:  # zipfile unpacks its way through a damaged archive
        return "list"
    return None
