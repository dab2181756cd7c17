"""Residue types ("aatype"): their order, names, and what counts as a protein residue.

The order is that of AlphaFold and Multiflow: alphabetical by three-letter code, then X. Index 20 is the unknown residue
and, in the token flow, the mask token.
"""

AATYPES = "ARNDCQEGHILKMFPSTWYV"
"""The twenty residue types in index order, one letter each."""

AATYPES_WITH_X = AATYPES + "X"

NUM_AATYPES = 20
UNKNOWN = 20
"""aatype of a residue that is none of the twenty."""

MASK_TOKEN = 20
"""Token that stands for "not known yet" in the masking flow; the same index as `UNKNOWN`, as in Multiflow."""

NUM_TOKENS = 21

ONE_TO_THREE = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY", "H": "HIS",
    "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER", "T": "THR", "W": "TRP",
    "Y": "TYR", "V": "VAL", "X": "UNK",
}  # fmt: skip

THREE_TO_INDEX = {ONE_TO_THREE[letter]: index for index, letter in enumerate(AATYPES_WITH_X)}

MODIFIED_TO_PARENT = {
    "MSE": "MET", "SEC": "CYS", "PYL": "LYS", "CSO": "CYS", "CME": "CYS", "CSD": "CYS", "CSX": "CYS", "OCS": "CYS",
    "SEP": "SER", "TPO": "THR", "PTR": "TYR", "HYP": "PRO", "MLY": "LYS", "M3L": "LYS", "KCX": "LYS", "LLP": "LYS",
    "ALY": "LYS", "PCA": "GLU", "CGU": "GLU", "FME": "MET", "MHO": "MET", "HIC": "HIS", "NEP": "HIS", "TYS": "TYR",
    "HSD": "HIS", "HSE": "HIS", "HSP": "HIS", "HID": "HIS", "HIE": "HIS", "HIP": "HIS", "CYX": "CYS", "CYM": "CYS",
    "ASH": "ASP", "GLH": "GLU", "LYN": "LYS", "AGM": "ARG", "DDZ": "ALA", "SNN": "ASN", "GL3": "GLY", "SMC": "CYS",
    "CAS": "CYS", "YCM": "CYS", "TRQ": "TRP",
}  # fmt: skip
"""Modified residues, read as the residue they were made from (`_chem_comp.mon_nstd_parent` of the PDB's chemical
components), and the names by which simulation programs tell protonation states apart."""

PROTONATION_STATES = frozenset(
    ("HSD", "HSE", "HSP", "HID", "HIE", "HIP", "CYX", "CYM", "ASH", "GLH", "LYN")
)  # fmt: skip
"""Of those the last: the same heavy atoms as their parents."""


def index_of(residue_name: str) -> int:
    """aatype of a three-letter residue name; `UNKNOWN` for anything else."""
    return THREE_TO_INDEX.get(MODIFIED_TO_PARENT.get(residue_name, residue_name), UNKNOWN)


def to_sequence(aatypes) -> str:
    """One-letter string of a sequence of aatype indices."""
    return "".join(AATYPES_WITH_X[int(index)] for index in aatypes)
