"""Structure files to proteins: which residues, which conformer, which numbers.

What PDB and mmCIF files hold beyond one tidy chain, and what becomes of it, is written where it is dealt with.
"""

import os
from dataclasses import dataclass

import biotite.structure as struc
import numpy as np
from biotite.structure.info import amino_acid_names

from app.chem import atoms as slots
from app.chem.residue_atoms import ATOM37_OF_AATYPE
from app.chem.residues import MODIFIED_TO_PARENT, THREE_TO_INDEX, UNKNOWN, index_of
from app.errors import UserError
from app.signals import heeding_ctrl_c
from app.structure import numbering
from app.structure.conformers import choose_conformers
from app.structure.losses import Loss, losses
from app.structure.parse import parse, read_bytes, stem_of
from app.types import Protein

PEPTIDE_BOND = 2.0
"""C and N of neighbours within this distance are bonded, angstrom (an ideal bond is 1.33)."""

_BACKBONE = [slots.N, slots.CA, slots.C]
_PLACEHOLDER = 9999.0  # some programs put atoms they could not place here, in angstrom
_SMALLEST_TRIANGLE = 0.1  # |(C - CA) x (N - CA)| below which they give no frame, square angstrom; ideal is 2.1
_RENAMED_ATOMS = {("MSE", "SE"): "SD", ("SEC", "SE"): "SG"}


@dataclass(frozen=True)
class ReadReport:
    """What the reader met and decided: counts of residues, unless said otherwise."""

    models: int  # models in the file, one of which was read
    incomplete: int  # dropped: N, CA or C is missing
    bad_coordinates: int  # dropped: N, CA or C has no finite coordinates
    degenerate: int  # dropped: N, CA and C coincide or lie on a line
    alternate: int  # kept, one of several conformers
    modified: int  # kept as the residue they were made from
    unknown: int  # kept as X
    renumbered: int  # kept, with another number than the author's
    zero_occupancy: int  # atoms kept although the file gives them no occupancy
    losses: tuple[Loss, ...]  # the residues that are not as the file has them

    @property
    def dropped(self) -> int:
        return self.incomplete + self.bad_coordinates + self.degenerate

    def notes(self) -> list[str]:
        """One line for each thing worth knowing, empty for a tidy file."""
        lines = {
            "models in the file, one read": self.models if self.models > 1 else 0,
            "residues dropped: N, CA or C missing": self.incomplete,
            "residues dropped: N, CA or C without finite coordinates": self.bad_coordinates,
            "residues dropped: N, CA and C give no frame": self.degenerate,
            "residues with several conformers, the most occupied kept": self.alternate,
            "modified residues read as their parents": self.modified,
            "unknown residues read as X": self.unknown,
            "residues renumbered for the model (insertion codes, numbers out of order)": self.renumbered,
            "atoms kept at zero occupancy": self.zero_occupancy,
        }
        return [f"{count} {line}" for line, count in lines.items() if count]


def read_structure(path: str | os.PathLike, model: int = 1) -> Protein:
    """All protein chains of a .pdb, .ent, .cif or .mmcif file, plain or gzipped.

    Chains and residues carry the author's names and numbers (mmCIF: the label ones where those are absent), numbers in
    two forms: as they are, and made to increase where they do not; model is a position in the file, 1 = first. Waters,
    ligands, nucleic acids and hydrogens are left out, and residues without usable N, CA and C. Atoms of zero occupancy
    are kept: models made by programs often have no other. No coordinate that comes out is NaN or infinite.

    Raises UserError: file missing, unreadable, empty, truncated or of unknown suffix; no protein chain, no usable
    residue.
    """
    return read_structure_with_report(path, model)[0]


def read_structure_with_report(path: str | os.PathLike, model: int = 1) -> tuple[Protein, ReadReport]:
    """As `read_structure`, with counts of what was dropped, chosen and renamed on the way."""
    return read_content(read_bytes(path), path, model)


@heeding_ctrl_c()
def read_content(content: bytes, path: str | os.PathLike, model: int = 1) -> tuple[Protein, ReadReport]:
    """As `read_structure_with_report`, for a file's content already in memory; path gives its name and format."""
    atoms, models = parse(content, path, model)
    residues = _Residues(atoms)
    protein = residues.is_protein()
    if not protein.any():
        raise UserError(f"{path}: the file holds no protein chain")
    # numbers are settled before residues are dropped, so that each of those leaves a gap
    res_idx = numbering.increasing(residues.number, residues.chain, protein)
    complete, finite, planar = residues.has_backbone(), residues.backbone_is_finite(), residues.backbone_gives_frame()
    keep = protein & finite & planar
    if not keep.any():
        written = bool((protein & complete).any())
        lacks = " at finite places apart from each other" if written else "; a CA trace cannot be used"
        raise UserError(f"{path}: none of its {protein.sum()} protein residues has N, CA and C{lacks}")
    kept_chains = list(dict.fromkeys(residues.chain[keep].tolist()))
    mask = residues.atom_mask[keep]
    chain_ids = numbering.unique_names([residues.chain_name[chain] for chain in kept_chains])
    residue_ids = numbering.residue_ids(
        residues.number[keep], residues.ins_code[keep], residues.chain[keep], res_idx[keep]
    )
    names = {**dict(enumerate(residues.chain_name)), **dict(zip(kept_chains, chain_ids, strict=True))}
    report = ReadReport(
        models=models,
        incomplete=int((protein & ~complete).sum()),
        bad_coordinates=int((protein & complete & ~finite).sum()),
        degenerate=int((protein & finite & ~planar).sum()),
        alternate=int(residues.alternate[keep].sum()),
        modified=int(np.isin(residues.name[keep], list(MODIFIED_TO_PARENT)).sum()),
        unknown=int((residues.aatype[keep] == UNKNOWN).sum()),
        renumbered=int((res_idx != residues.number)[keep].sum()),
        zero_occupancy=int((mask & (residues.occupancy[keep] <= 0)).sum()),
        losses=losses(
            protein,
            keep,
            residues.name,
            residues.aatype,
            residues.left_out,
            chain_names=np.array([names[chain] for chain in residues.chain.tolist()]),
            ids=res_idx if residue_ids is None else numbering.in_words(residues.number, residues.ins_code),
        ),
    )
    read = Protein(
        name=stem_of(path),
        atom37=residues.atom37[keep],
        atom_mask=mask,
        aatype=residues.aatype[keep],
        res_idx=res_idx[keep],
        chain_idx=np.array([kept_chains.index(chain) + 1 for chain in residues.chain[keep].tolist()]),
        chain_ids=chain_ids,
        b_factors=residues.ca_b_factor[keep].astype(np.float32),
        residue_ids=residue_ids,
    )
    return read, report


def split_chains(protein: Protein) -> list[Protein]:
    """One protein a chain, named `<name>_<chain id>`, each with chain_idx 1."""
    chains = []
    for index, chain_id in enumerate(protein.chain_ids, start=1):
        own = protein.chain_idx == index
        chains.append(
            Protein(
                name=f"{protein.name}_{chain_id}",
                atom37=protein.atom37[own],
                atom_mask=protein.atom_mask[own],
                aatype=protein.aatype[own],
                res_idx=protein.res_idx[own],
                chain_idx=np.ones(int(own.sum()), dtype=np.int64),
                chain_ids=(chain_id,),
                b_factors=protein.b_factors[own],
                residue_ids=None if protein.residue_ids is None else protein.residue_ids[own],
            )
        )
    return chains


class _Residues:
    """The file's residues of every kind (R of them), one conformer each, chain after chain in order of appearance."""

    def __init__(self, atoms: struc.AtomArray):
        chain, self.chain_name = numbering.chains(atoms)
        atom_residue, self.alternate, conformer = choose_conformers(atoms, chain)
        first = np.unique(np.where(conformer, atom_residue, len(atoms)), return_index=True)[1][: len(self.alternate)]
        self.name = atoms.res_name[first]
        self.number = atoms.res_id[first].astype(np.int64)
        self.ins_code = atoms.ins_code[first]
        self.chain = chain[first]
        self.hetero = atoms.hetero[first]
        self.seq_pos = atoms.seq_pos[first]
        self.aatype = np.array([index_of(name) for name in self.name], dtype=np.int64)
        self._fill(atoms, atom_residue, conformer)

    def _fill(self, atoms: struc.AtomArray, atom_residue: np.ndarray, conformer: np.ndarray) -> None:
        """Atoms into their slots. `placed` tells an atom that is in the file, `atom_mask` one that can be used."""
        names = [
            _RENAMED_ATOMS.get(pair, pair[1])
            for pair in zip(atoms.res_name.tolist(), atoms.atom_name.tolist(), strict=True)
        ]
        slot = np.array([slots.ATOM37_INDEX.get(name, -1) for name in names])
        has_slot = (slot >= 0) & ATOM37_OF_AATYPE[self.aatype[atom_residue], slot]
        self.left_out = np.bincount(atom_residue[conformer & ~has_slot & _heavy(atoms)], minlength=len(self.aatype))
        wanted = conformer & has_slot
        # of atoms that are there twice the first counts: it is written last
        wanted = np.flatnonzero(wanted)[::-1]
        index = atom_residue[wanted], slot[wanted]

        size = (len(self.aatype), slots.NUM_ATOM37)
        self.placed = np.zeros(size, dtype=bool)
        self.atom_mask = np.zeros(size, dtype=bool)
        self.atom37 = np.zeros((*size, 3), dtype=np.float32)
        self.occupancy = np.zeros(size)
        b_factor = np.zeros(size)
        self.placed[index] = True
        self.atom_mask[index] = _usable(atoms)[wanted]
        self.atom37[index] = atoms.coord[wanted]
        self.atom37[~self.atom_mask] = 0
        self.occupancy[index] = atoms.occupancy[wanted]
        b_factor[index] = atoms.b_factor[wanted]
        self.ca_b_factor = np.nan_to_num(b_factor[:, slots.CA])

    def has_backbone(self) -> np.ndarray:
        return self.placed[:, _BACKBONE].all(-1)

    def backbone_is_finite(self) -> np.ndarray:
        return self.atom_mask[:, _BACKBONE].all(-1)

    def backbone_gives_frame(self) -> np.ndarray:
        n, ca, c = (self.atom37[:, slot] for slot in _BACKBONE)
        return np.linalg.norm(np.cross(c - ca, n - ca), axis=-1) > _SMALLEST_TRIANGLE

    def is_protein(self) -> np.ndarray:
        """[R] bool: residues of a protein chain, usable or not.

        mmCIF says which residues a polymer has. Elsewhere an ATOM record with an amino acid's name is one; any other
        residue with a backbone (modified ones are HETATM) is one if a peptide bond joins it to a neighbour, which tells
        it from a free amino acid and from ligands with atoms of these names.
        """
        amino_acids = {*amino_acid_names(), *THREE_TO_INDEX, *MODIFIED_TO_PARENT}
        known = np.array([name in amino_acids for name in self.name.tolist()], dtype=bool)
        if (self.seq_pos >= 0).any():
            return (self.seq_pos >= 0) & (known | self.has_backbone())
        return (known & ~self.hetero) | (self.has_backbone() & self._bonded())

    def _bonded(self) -> np.ndarray:
        c, n = self.atom37[:-1, slots.C], self.atom37[1:, slots.N]
        there = self.atom_mask[:-1, slots.C] & self.atom_mask[1:, slots.N] & (self.chain[:-1] == self.chain[1:])
        bond = there & (np.linalg.norm(c - n, axis=-1) < PEPTIDE_BOND)
        return np.append(bond, False) | np.append(False, bond)


def _heavy(atoms: struc.AtomArray) -> np.ndarray:
    """[A] bool: atoms that are no hydrogen, by their element, or where there is none by their name ("HB1", "1HB")."""
    names = np.array([name.lstrip("0123456789") for name in atoms.atom_name.tolist()], dtype=str)
    element = np.where(atoms.element == "", names.astype("U1"), atoms.element)
    return ~np.isin(element, ("H", "D"))


def _usable(atoms: struc.AtomArray) -> np.ndarray:
    """[A] bool: atoms with real coordinates, not NaN nor where programs park atoms they could not place."""
    finite = np.isfinite(atoms.coord).all(-1) & (np.abs(np.nan_to_num(atoms.coord)) < _PLACEHOLDER).all(-1)
    parked = (atoms.coord == 0).all(-1) & (atoms.occupancy <= 0)
    return finite & ~(parked & (parked.sum() > 1))  # a single atom may well lie on the origin
