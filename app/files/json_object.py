"""Reading a JSON file that somebody else may have written, or that may be cut off."""

import json
from pathlib import Path
from typing import Any


def json_object(file: Path) -> dict[str, Any] | None:
    """What it holds; None where it cannot be read, or holds something else than one object."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last of brackets in brackets
        return None
    return found if isinstance(found, dict) else None
