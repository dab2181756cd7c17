"""What the numbers of an evaluation come from."""

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import app
from app.evaluation import against, align, bonds, clashes, composition, design, diversity, summary
from app.evaluation.chain import CA_CA_TOLERANCE, PEPTIDE_BOND
from app.evaluation.settings import EvaluationSettings

_PACKAGES = ("biotite", "numpy", "scipy", "torch")
_OF_THE_RUN = ("checkpoint", "seed", "task", "versions")


def provenance(settings: EvaluationSettings, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, settings and thresholds, and what the run's manifest says of itself. Nothing that changes from one
    evaluation of the same designs to the next."""
    return {
        "versions": {"trunkline": app.__version__, **{name: metadata.version(name) for name in _PACKAGES}},
        "metrics": {"design": design.VERSION, "against": against.VERSION, "tm_score": align.VERSION},
        "settings": settings.model_dump(mode="json"),
        "thresholds": {
            "bond_and_angle_deviations": bonds.OUTLIER,
            "ca_ca_tolerance": CA_CA_TOLERANCE,
            "clash_overlap": clashes.OVERLAP,
            "peptide_bond": PEPTIDE_BOND,
            "twisted_peptide": design.PLANAR,
            "same_fold": diversity.SAME_FOLD,
        },
        "natural_composition": composition.SOURCE,
        "interval": f"{summary.INTERVAL[1] - summary.INTERVAL[0]:g} % of {settings.resamples} bootstrap means",
        "run": {key: manifest[key] for key in _OF_THE_RUN if key in manifest},
    }
