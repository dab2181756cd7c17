"""Entries of the Protein Data Bank from the RCSB, as mmCIF files."""

import re
from collections.abc import Iterable
from pathlib import Path

import requests
from biotite.database import RequestError, rcsb

from app.errors import UserError
from app.structure.atomic import replacing
from app.structure.parse import format_of, stem_of

_ENTRY = re.compile(r"[1-9][a-z0-9]{3}")


def fetch(entries: Iterable[str], folder: Path) -> tuple[list[Path], list[Path]]:
    """Download entries into a folder; what is there, in whatever format, is kept.

    Returns (files downloaded, files kept). Files appear whole or not at all.
    Raises UserError: an id that is none (before anything is downloaded), no network, entries the RCSB does not have
    (after the others were downloaded), folder not writable.
    """
    entries = list(dict.fromkeys(entry.strip().lower() for entry in entries))
    wrong = [entry for entry in entries if not _ENTRY.fullmatch(entry)]
    if wrong:
        raise UserError(f"{', '.join(map(repr, wrong))}: not PDB ids; give four characters such as 1ubq")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {stem_of(file).lower(): file for file in sorted(folder.iterdir()) if format_of(file)}
    except OSError as error:
        raise UserError(f"{folder}: not a folder to write to ({error.strerror}); choose another with --to") from None

    downloaded, unknown = [], []
    for entry in entries:
        if entry in there:
            continue
        text = _download(entry)
        if text is None:
            unknown.append(entry)
        else:
            downloaded.append(_write(folder / f"{entry}.cif", text))
    if unknown:
        raise UserError(f"{', '.join(unknown)}: the RCSB has no such entry; look the ids up at rcsb.org")
    return downloaded, [there[entry] for entry in entries if entry in there]


def _download(entry: str) -> str | None:
    """The entry's mmCIF text; None where there is no such entry."""
    try:
        text = rcsb.fetch(entry, "cif").getvalue()
    except RequestError:
        return None
    except requests.RequestException as error:
        raise UserError(
            f"{entry}: cannot be downloaded, the RCSB cannot be reached ({type(error).__name__}); check the network or "
            "put structure files into the folder yourself"
        ) from None
    if "_atom_site." not in text:
        raise UserError(f"{entry}: the answer of the RCSB holds no atoms; try again later")
    return text


def _write(path: Path, text: str) -> Path:
    try:
        with replacing(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder with --to") from None
    return path
