"""The columns of an evaluation, a row a design. docs/metrics.md defines each."""

import math

from app.chem.residues import AATYPES

ABOUT = ("id", "file", "task", "length", "chains", "sequence", "certainty", "flags", "notes", "error")
"""What a row is of; nothing in it is measured here."""

GEOMETRY = (
    "bond_outliers",
    "bond_deviation",
    "angle_outliers",
    "angle_deviation",
    "ca_ca_valid",
    "ca_ca_deviation",
    "clashes",
    "d_residues",
    "left_handed_helix",
    "ramachandran_outliers",
    "cis_peptides",
    "twisted_peptides",
    "chain_breaks",
    "gaps",
)

SHAPE = ("radius_of_gyration", "compactness", "helix", "strand", "coil", "helices", "strands", "topology")

COMPOSITION = ("composition_divergence", "most_common_share", *(f"fraction_{letter}" for letter in AATYPES))

DESIGN = GEOMETRY + SHAPE + COMPOSITION
"""What is measured of a design alone."""

AGAINST = ("reference", "recovery", "ca_rmsd", "backbone_rmsd", "tm_score", "lddt")

DIVERSITY = ("cluster",)

NOVELTY = ("novelty_tm_score", "novelty_nearest")

TEXT = frozenset(
    {"id", "file", "task", "sequence", "flags", "notes", "error", "topology", "reference", "novelty_nearest"}
)
"""Columns of words. All others are numbers."""

NAMES = frozenset({"chains", "cluster"})
"""Numbers of which a mean would say nothing."""

SKIPPED = "skipped: "
"""How the value of what was not measured begins; the reason follows."""

Value = float | int | bool | str


def skipped(columns: tuple[str, ...], reason: str) -> dict[str, Value]:
    return dict.fromkeys(columns, SKIPPED + reason)


def printable(text: str) -> str:
    """Names of files, and text of a manifest, need not be valid UTF-8; tables and pages are."""
    return text.encode("utf-8", "backslashreplace").decode()


def number(value: float, unless: str) -> Value:
    """A number as it is written, to six digits after the point; where it is none, the reason."""
    value = float(value)
    return round(value, 6) if math.isfinite(value) else SKIPPED + unless
