"""Self-consistency: does a sequence fold, by another model, into the structure that was designed.

Heavy packages are imported when something is refolded, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from app.evaluation.refold.columns import COLUMNS
from app.evaluation.refold.settings import RefoldSettings

if TYPE_CHECKING:
    from app.types import Protein

__all__ = ["COLUMNS", "RefoldSettings", "provenance", "refold", "why_not"]


def why_not(settings: RefoldSettings) -> str | None:
    """Why nothing can be measured with these settings, or None. Nothing large is read."""
    from app.evaluation.refold.plugin import chosen

    return chosen(settings).why_not()


def provenance(settings: RefoldSettings) -> dict[str, Any]:
    """The settings, and of each plug-in that takes part its name, where its weights lie and what tells them apart."""
    from app.evaluation.refold.plugin import chosen

    return chosen(settings).provenance()


def refold(
    designs: Mapping[str, Protein], settings: RefoldSettings, progress: Callable[[int, int], None] | None = None
) -> dict[str, dict[str, Any]]:
    """By the id of each design a value for each of `COLUMNS`: a number, a truth value, a sequence, or
    "skipped: reason".

    progress: told how many of how many sequences are folded. A design that fails stops no other.
    """
    from app.evaluation.refold.protocol import measured

    return measured(designs, settings, progress)
