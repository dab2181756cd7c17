"""How the designs of a folder are distributed: lengths, geometry, torsions, secondary structure, and what else was
measured of each."""

from collections import Counter

import numpy as np

from app.chem import backbone_geometry as ideal
from app.chem.backbone import CA_CA_TRANS
from app.chem.residues import AATYPES
from app.evaluation.columns import NAMES
from app.evaluation.compactness import EXPONENT, PREFACTOR, expected_radius, radius_of_gyration
from app.evaluation.composition import SWISS_PROT
from app.evaluation.ramachandran import GENERAL
from app.evaluation.secondary_structure import HELIX, STRAND, contents
from app.report.designs import Folder
from app.report.geometry import measured
from app.report.models import CA, Model
from app.report.pictures import Pictures
from app.report.plots import Plot, bars, density, histogram, scatter
from app.report.words import in_words

_TORSION = (-180.0, 180.0)
_TORSION_TICKS = (-180, -90, 0, 90, 180)
_TORSION_BINS = 72  # of 5 degrees

DRAWN_TOGETHER = "fraction_"
"""How the columns of the evaluation begin that are drawn as one, the composition."""

_SHOWN = (0.8, 2.0)  # of the ideal value: bonds outside are counted in the note


def of_structures(folder: Folder, pictures: Pictures) -> list[Plot]:
    """Plots of what follows from the structures themselves; none where there is no structure."""
    plots = []
    if lengths := [length for design in folder.designs if (length := design.length or len(design.sequence))]:
        plots.append(histogram("Length", lengths, "residues"))
    models = pictures.models
    if not models:
        return plots
    geometry = measured(list(models.values()))
    if len(geometry.phi_psi):
        phi, psi = geometry.phi_psi.T
        note = f"{len(phi):,} residues in squares of 5°; shaded: regions of folded proteins"
        limits = (_TORSION, _TORSION)
        labels = ("φ, degrees", "ψ, degrees")
        plots.append(density("Ramachandran", phi, psi, labels, limits, _TORSION_BINS, note, _TORSION_TICKS, GENERAL))
    plots.append(_secondary_structure(pictures))
    sizes = [(float(len(model)), _radius(model)) for model in models.values()]
    known = [(size, name) for size, name in zip(sizes, models, strict=True) if np.isfinite(size).all()]
    if known:
        points, names = zip(*known, strict=True)
        lengths = np.linspace(0.9 * min(x for x, _ in points), 1.1 * max(x for x, _ in points), 20).tolist()
        curve = [(length, expected_radius(length)) for length in lengths]
        note = f"line: folded proteins, {PREFACTOR} N^{EXPONENT} (of one chain)"
        plots.append(scatter("Size", points, ("residues", "radius of gyration, Å"), names, note, curve=curve))
    plots += [
        plot
        for title, values, label, mark in (
            ("Peptide bond", geometry.c_n, "C–N, Å", ideal.C_N),
            ("CA to CA", geometry.ca_ca, "neighbours' distance, Å", CA_CA_TRANS),
            ("Angle CA–C–N", geometry.ca_c_n, "degrees", np.degrees(ideal.CA_C_N)),
            ("Angle C–N–CA", geometry.c_n_ca, "degrees", np.degrees(ideal.C_N_CA)),
        )
        if (plot := _about(title, values, label, mark))
    ]
    if certainty := list(pictures.certainty.values()):
        values = np.concatenate(certainty)
        plots.append(histogram("Token certainty", values, "of each residue, 0 to 100", f"{len(values):,} residues"))
    if composition := _composition(folder):
        natural = [SWISS_PROT[letter] / 100 for letter in composition]
        plots.append(bars("Composition", composition, "share of residues", "dashes: Swiss-Prot", natural))
    return plots


def of_measures(folder: Folder) -> list[Plot]:
    """A histogram of each number of the records and of the evaluation's table that differs between designs."""
    plots = []
    for name in folder.columns:
        values = [value for design in folder.designs if isinstance(value := design.values.get(name), float)]
        if len(set(values)) > 1 and name not in NAMES and not name.startswith(DRAWN_TOGETHER):
            note = f"of {len(values):,}" if len(values) < len(folder.designs) else ""
            plots.append(histogram(in_words(name), values, name, note))
    return plots


def _secondary_structure(pictures: Pictures) -> Plot:
    shares = {name: contents(states) for name, states in pictures.states.items()}
    points = [(one["helix"], one["strand"]) for one in shares.values()]
    every = "".join(pictures.states.values())
    helix, strand = every.count(HELIX) / len(every), every.count(STRAND) / len(every)
    note = f"of all residues {helix:.0%} helix, {strand:.0%} strand (DSSP)"
    labels = ("share in helices", "share in strands")
    return scatter("Secondary structure", points, labels, list(shares), note, limits=((0, 1), (0, 1)))


def _radius(model: Model) -> float:
    """Radius of gyration, angstrom; NaN where there is no CA."""
    ca = model.backbone[:, CA]
    ca = ca[np.isfinite(ca).all(-1)]
    return radius_of_gyration(ca) if len(ca) else float("nan")


def _about(title: str, values: np.ndarray, label: str, mark: float) -> Plot | None:
    """A histogram around an ideal value, that it may not be drowned by a few broken bonds."""
    low, high = (bound * mark for bound in _SHOWN)
    inside = values[(values >= low) & (values <= high)]
    if not len(inside):
        return None
    outside = len(values) - len(inside)
    note = f"line: {mark:.4g}" + (f"; {outside:,} of {len(values):,} outside" if outside else "")
    return histogram(title, inside, label, note, marks=[mark])


def _composition(folder: Folder) -> dict[str, float]:
    counts = Counter("".join(design.sequence for design in folder.designs))
    total = sum(counts[letter] for letter in AATYPES)
    return {letter: counts[letter] / total for letter in sorted(AATYPES)} if total else {}
