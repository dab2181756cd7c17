"""Numbers that say how good designs are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.evaluation.run import Evaluation


def evaluate(folder: Path, settings: Any = None, **options: Any) -> Evaluation:
    """As `app.evaluation.run.evaluate` says; settings: an EvaluationSettings, by default its defaults.

    The training run, which has use for single measures, must not wait for what reads and writes files.
    """
    from app.evaluation.run import evaluate
    from app.evaluation.settings import EvaluationSettings

    return evaluate(folder, settings or EvaluationSettings(), **options)
