"""What tasks other than from noise start from: chains of structure files, and sequences of FASTA files."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.chem import atoms
from app.chem.residues import UNKNOWN
from app.config.keys import one_line
from app.data.features import features
from app.errors import UserError
from app.files.listed import may_be_listed, refuse_unlisted
from app.sampling.fix import fixed_residues
from app.sampling.inputs import Task
from app.sampling.layout import Layout
from app.sampling.request import MAX_RESIDUES, Request
from app.sampling.sequences import FASTA_SUFFIXES, is_fasta, read_fasta
from app.structure.numbering import split_residue_ids
from app.structure.parse import SUFFIXES, format_of, stem_of
from app.structure.read import ReadReport, read_structure_with_report, split_chains
from app.structure.write import CHAIN_LETTERS
from app.types import Frames, Protein

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Kept:
    """What of a structure stays in partial design. N residues, on the CPU."""

    fixed: Tensor  # [N] bool, residues of which everything is given
    atom37: Tensor  # [N, 37, 3] float32, angstrom, where the file has them
    atom_mask: Tensor  # [N, 37] bool


@dataclass(frozen=True)
class Given:
    """One protein or sequence of N residues, on the CPU."""

    name: str  # unique in the run once `read_given` is done, and safe as a file name
    source: str  # the file, and the chain or record in it
    aatypes: Tensor  # [N] int64
    chain_idx: Tensor  # [N] int64
    res_idx: Tensor  # [N] int64, 1 at the start of each chain, gaps kept: what the model sees
    numbers: np.ndarray  # [N] int64, the file's
    chain_ids: tuple[str, ...]  # the file's
    ins_codes: np.ndarray | None = None  # [N] str, the file's; None: none
    frames: Frames | None = None  # [N], angstrom, centred; None where only a sequence is given
    centre: Tensor = field(default_factory=lambda: torch.zeros(3))  # of the CA in the file, angstrom
    notes: tuple[str, ...] = ()  # what was changed in reading
    kept: Kept | None = None  # in partial design

    @property
    def layout(self) -> Layout:
        codes = np.full(len(self), "") if self.ins_codes is None else self.ins_codes
        return Layout(self.chain_idx, self.res_idx, self.numbers, codes, self.chain_ids)

    def __len__(self) -> int:
        return len(self.aatypes)


@dataclass(frozen=True)
class Skipped:
    """A file, chain or record that is not used."""

    input: str
    reason: str


def read_given(
    request: Request, track: Callable[[list[Path]], Iterable[Path]] = iter
) -> tuple[list[Given], list[Skipped]]:
    """All that the request's input holds, in the order of file names, and what of it is left out.

    track: wraps the files, to show progress. Raises UserError: no such path, a single file that cannot be used, a
    folder in which nothing can.
    """
    path = request.input
    if request.chains == "together" and is_fasta(path) and path.is_file():
        raise UserError("chains=together has no effect on sequences, each is a chain of its own: leave it out")
    if request.task is Task.PARTIAL and path.is_dir():
        raise UserError(
            f"input={path}: is a folder; task=partial takes one structure file, of which fix=... names residues"
        )
    given: list[Given] = []
    skipped: list[Skipped] = []
    for file in track(files_of(path)):
        try:
            found = _read(file, request)
        except Exception as error:  # whatever is wrong with one file of a folder, the others go on
            if path.is_file():
                raise
            reason = str(error) if isinstance(error, UserError) else f"unexpected {type(error).__name__}: {error}"
            skipped.append(Skipped(str(file), one_line(reason).removeprefix(f"{file}: ")))
            continue
        for one in found:
            if isinstance(one, Skipped):
                skipped.append(one)
            elif reason := _unusable(one):
                skipped.append(Skipped(one.source, reason))
            else:
                given.append(one)
    if not given:
        reasons = "; ".join(f"{one.input}: {one.reason}" for one in skipped[:3])
        raise UserError(f"input={path}: nothing in it can be used: {reasons or 'the folder is empty'}")
    return _with_unique_names(given), skipped


def files_of(path: Path) -> list[Path]:
    """The file, or all files of the folder and its subfolders, hidden ones left out; and what should hold some and does
    not, for whoever reads them to say so. Raises UserError."""
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise UserError(f"input={path}: no such file or folder; give a structure or FASTA file, or a folder of them")
    refuse_unlisted(path, "input=")
    return sorted(
        file
        for file in path.rglob("*")
        if (os.path.isfile(file) or _leads_nowhere(file))
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def _leads_nowhere(path: Path) -> bool:
    # not by the methods of Path, which raise where a folder may not be entered
    return not os.path.exists(path) or (os.path.isdir(path) and not may_be_listed(path))


def _read(file: Path, request: Request) -> list[Given | Skipped]:
    task = request.task
    if _leads_nowhere(file):
        raise UserError(f"{file}: a folder that may not be listed, or a link to nothing: mend it")
    if is_fasta(file):
        if task.needs_structure:
            raise UserError(f"{file}: holds sequences; task={task.value} needs a structure file ({SUFFIXES})")
        return list(_from_fasta(file))
    if format_of(file) is None:
        also = "" if task.needs_structure else f" and sequences ({', '.join(FASTA_SUFFIXES)})"
        raise UserError(f"{file}: unknown by its suffix; read are structures ({SUFFIXES}){also}, each also with .gz")
    protein, report = read_structure_with_report(file)
    notes = tuple(report.notes())
    if task is Task.PARTIAL:
        return [_partial(protein, file, request.fix, report)]
    if request.chains == "together":
        return [from_protein(protein, str(file), notes)]
    return [from_protein(one, f"{file} chain {one.chain_ids[0]}", notes) for one in split_chains(protein)]


def _partial(protein: Protein, file: Path, fix: Sequence[str], report: ReadReport) -> Given:
    """All of the file as one design. It is centred over all residues, those to be designed included, as examples are in
    training: where these lie in the mean is the file's."""
    fixed, of_fix = fixed_residues(fix, protein, file, report.losses)
    kept = Kept(*(torch.from_numpy(values) for values in (fixed, protein.atom37, protein.atom_mask)))
    return replace(from_protein(protein, str(file), (*report.notes(), *of_fix)), kept=kept)


def from_protein(protein: Protein, source: str, notes: tuple[str, ...] = ()) -> Given:
    """A protein with its features. Numbers and chain names that a PDB file cannot hold are noted."""
    tensors = features(protein)
    numbers, ins_codes = protein.res_idx, None
    if protein.residue_ids is not None:
        numbers, ins_codes = split_residue_ids(protein.residue_ids.tolist())
    given = Given(
        name=protein.name,
        source=source,
        aatypes=tensors["aatypes_1"],
        chain_idx=tensors["chain_idx"],
        res_idx=tensors["res_idx"],
        numbers=numbers,
        chain_ids=protein.chain_ids,
        ins_codes=ins_codes,
        frames=Frames(tensors["rotmats_1"], tensors["trans_1"]),
        centre=torch.from_numpy(protein.atom37[:, atoms.CA].mean(0, dtype=np.float64).astype(np.float32)),
    )
    return replace(given, notes=(*notes, *_pdb_notes(given.layout)))


def _pdb_notes(layout: Layout) -> Iterator[str]:
    fitting = layout.for_pdb()
    if fitting.numbers is not layout.numbers:
        yield "residue numbers do not fit the PDB format: counted from 1 in PDB files"
    if fitting.chain_ids is not layout.chain_ids:
        renamed = ", ".join(f"{old} as {new}" for old, new in zip(layout.chain_ids, fitting.chain_ids, strict=True))
        yield f"chain names do not fit the PDB format: {renamed} in PDB files"


def _from_fasta(file: Path) -> Iterator[Given | Skipped]:
    for number, record in enumerate(read_fasta(file), start=1):
        source = f"{file} record {record.name or number}"
        if record.fault is not None:
            yield Skipped(source, record.fault)
            continue
        position = torch.arange(1, len(record.aatypes) + 1)
        yield Given(
            name=record.name or f"{stem_of(file)}_{number}",
            source=source,
            aatypes=torch.from_numpy(record.aatypes),
            chain_idx=torch.ones_like(position),
            res_idx=position,
            numbers=position.numpy(),
            chain_ids=("A",),
            notes=tuple(record.notes),
        )


def _unusable(given: Given) -> str | None:
    if len(given) == 0:
        return "the sequence is empty"
    if given.frames is None and bool((given.aatypes == UNKNOWN).all()):
        return "no residue of a known type in the sequence"
    if len(given) > MAX_RESIDUES:
        return f"{len(given)} residues, beyond the model's limit of {MAX_RESIDUES}"
    if len(given.chain_ids) > len(CHAIN_LETTERS):
        return f"{len(given.chain_ids)} chains, more than the {len(CHAIN_LETTERS)} that a PDB file can name"
    return None


def _with_unique_names(given: list[Given]) -> list[Given]:
    """Names made safe for any file system, also one that does not tell A from a."""
    taken: set[str] = set()
    renamed = []
    for one in given:
        base = _UNSAFE.sub("_", one.name).strip("._-")[:_LONGEST_NAME] or "protein"
        name, count = base, 1
        while name.lower() in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name.lower())
        renamed.append(replace(one, name=name))
    return renamed
