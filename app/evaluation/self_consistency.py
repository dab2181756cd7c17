"""Where the plug-ins of self-consistency (`app.evaluation.refold`) meet the evaluation, if there are any."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from app.evaluation.columns import Value, skipped
from app.types import Protein

COLUMNS = (
    *("codesign_rmsd", "codesign_tm", "codesign_plddt", "codesign_designable"),
    *("sc_rmsd", "sc_tm", "sc_plddt", "sc_share", "sc_sequence", "designable", "sequence_nll"),
)
WORDS = frozenset({"sc_sequence"})


def refolded(
    designs: Mapping[str, Protein], settings: Any = None, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, dict[str, Value]], dict[str, Any]]:
    """By id the values of `COLUMNS`, and what they were found with. settings: a RefoldSettings; None: the defaults.

    designs: as a mapping that reads one when it is asked for.
    """
    reason, told = "no plug-ins are installed", {}
    if find_spec("app.evaluation.refold") is not None:
        from app.evaluation import refold

        settings = settings or refold.RefoldSettings()
        reason = refold.why_not(settings)
        told = refold.provenance(settings)
        if reason is None:
            return refold.refold(designs, settings, progress), told
    return {name: skipped(COLUMNS, reason) for name in designs}, told
