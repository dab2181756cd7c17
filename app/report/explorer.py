"""The designs as the page's scripts read them: docs/report.md says what its keys mean."""

from typing import Any

from app.report.designs import Design, Folder
from app.report.pictures import DESIGNS, Pictures
from app.report.words import in_words

CERTAINTY = "certainty"


def explorer(folder: Folder, pictures: Pictures) -> dict[str, Any]:
    """The first `DESIGNS` designs, and the columns of what was measured of them."""
    for design in folder.designs:
        if design.structure and design.id in pictures.certainty:
            design.values.setdefault(CERTAINTY, round(float(pictures.certainty[design.id].mean()), 2))
    listed = folder.designs[:DESIGNS]
    columns = folder.columns
    entries = [pictures.entries.get(design.id) if design.structure else None for design in listed]
    return {
        "columns": [{"name": name, "label": in_words(name)} for name in columns],
        "designs": [_listed(design, columns, entry) for design, entry in zip(listed, entries, strict=True)],
    }


def _listed(design: Design, columns: list[str], entry: dict[str, Any] | None) -> dict[str, Any]:
    listed = {
        "id": design.id,
        "status": design.status,
        "task": design.task,
        "seed": design.seed,
        "length": design.length or len(design.sequence),
        "sequence": design.sequence,
        "error": design.error,
        "flags": design.flags,
        "details": design.details,
        "values": [design.values.get(name) for name in columns],
    }
    return listed | ({"structure": entry} if entry else {})
