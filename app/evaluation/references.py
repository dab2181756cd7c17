"""Which structure a design is held against: one of its name, or the one that the manifest says it was made from."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from app.errors import UserError
from app.evaluation.found import Found, preference, structures_in
from app.structure.parse import SUFFIXES, format_of, stem_of
from app.structure.read import read_structure, split_chains
from app.types import Protein

_COPY = re.compile(r"_\d+$")  # which of several designs of one input
_CHAIN = re.compile(r"^(?P<file>.*?)(?: (?:chain|record) (?P<name>.+))?$")


class References:
    """folder: of structures to match by name; None: the manifest's inputs themselves, where they are structures. say:
    takes a line where a name is that of several. Raises UserError: no structure in the folder."""

    def __init__(self, folder: Path | None, say: Callable[[str], None] = lambda line: None):
        self.folder = folder
        self._paths = _by_name(folder, say) if folder else {}

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


def _by_name(folder: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """A structure in two formats, side by side, is one; of those in several folders one counts, and that is said."""
    by_name: dict[str, list[str]] = {}
    for file in structures_in(folder, say, "--reference"):
        by_name.setdefault(stem_of(file), []).append(file)
    if not by_name:
        raise UserError(f"--reference {folder}: it holds no structure file ({SUFFIXES})")
    chosen = {name: min(files, key=preference) for name, files in by_name.items()}
    several = [name for name, files in by_name.items() if len({file.rpartition("/")[0] for file in files}) > 1]
    if several:
        more = f", and so for {len(several) - 1} more names" if len(several) > 1 else ""
        files = [file for file in by_name[several[0]] if file != chosen[several[0]]]
        say(f"--reference: {chosen[several[0]]} is taken for {several[0]}, not {', '.join(files[:3])}{more}")
    return {name: folder / file for name, file in chosen.items()}


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
