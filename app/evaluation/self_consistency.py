"""Where the plug-ins of self-consistency (`app.evaluation.refold`) meet the evaluation."""

from collections.abc import Callable, Mapping
from typing import Any

from app.evaluation import refold
from app.evaluation.columns import Value, skipped
from app.evaluation.refold import COLUMNS, RefoldSettings
from app.types import Protein

WORDS = frozenset({"sc_sequence"})


def refolded(
    designs: Mapping[str, Protein],
    settings: RefoldSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, dict[str, Value]], dict[str, Any]]:
    """By id the values of `COLUMNS`, and what they were found with. settings: None: the defaults.

    designs: as a mapping that reads one when it is asked for.
    """
    settings = settings or RefoldSettings()
    told = refold.provenance(settings)
    if reason := refold.why_not(settings):
        return {name: skipped(COLUMNS, reason) for name in designs}, told
    return refold.refold(designs, settings, progress), told
