"""Which structure a design is held against: one of its name, or the one that the manifest says it was made from."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from app.data.find import find_files
from app.errors import UserError
from app.evaluation.found import Found
from app.structure.parse import format_of, stem_of
from app.structure.read import read_structure, split_chains
from app.types import Protein

_COPY = re.compile(r"_\d+$")  # which of several designs of one input
_CHAIN = re.compile(r"^(?P<file>.*?)(?: (?:chain|record) (?P<name>.+))?$")


class References:
    """folder: of structures to match by name; None: the manifest's inputs themselves, where they are structures."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self._paths = {stem_of(path): path for path in find_files(folder).paths()} if folder else {}

    def of(self, design: Found) -> tuple[Path, str | None]:
        """File and chain (None: all of it). Raises UserError where there is none."""
        source, chain = _input(design)
        for name, own_chain in self._names(design, source, chain):
            if name in self._paths:
                return self._paths[name], own_chain
        if self.folder is not None:
            raise UserError("no reference of that name")
        if source is None or format_of(source) is None:
            raise UserError("no --reference given")
        if not source.is_file():
            raise UserError(f"{source.name} is not where the manifest says: give --reference")
        return source, chain

    def _names(self, design: Found, source: Path | None, chain: str | None) -> Iterator[tuple[str, str | None]]:
        """Names that the reference may have, and its chain under that name."""
        if source is not None:
            if chain is not None:
                yield f"{stem_of(source)}_{chain}", None
                yield chain, None  # a sequence's name
            yield stem_of(source), chain if format_of(source) else None
        name = design.id.rpartition("/")[2]
        stems = list(dict.fromkeys((name, _COPY.sub("", name))))
        yield from ((stem, None) for stem in stems)
        for stem in stems:
            entry, _, letter = stem.rpartition("_")
            yield entry, letter


def _input(design: Found) -> tuple[Path | None, str | None]:
    text = design.record.get("input")
    if not isinstance(text, str) or not text:
        return None, None
    match = _CHAIN.match(text)
    return (Path(match["file"]), match["name"]) if match else (None, None)


def protein_of(path: Path, chain: str | None) -> Protein:
    """Raises UserError: not readable, no such chain."""
    protein = _read(path, path.stat().st_mtime_ns)
    if chain is None:
        return protein
    for one, name in zip(split_chains(protein), protein.chain_ids, strict=True):
        if name == chain:
            return one
    raise UserError(f"{path.name} has no chain {chain}")


@lru_cache(maxsize=16)
def _read(path: Path, stamp: int) -> Protein:
    """stamp: the time of the file's last change, so that one that is replaced is read again."""
    return read_structure(path)
