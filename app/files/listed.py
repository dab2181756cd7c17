"""Whether a folder can be looked into."""

import os
from pathlib import Path

from app.errors import UserError


def may_be_listed(folder: Path) -> bool:
    """With the files in it, which the right to list alone would not give."""
    return os.access(folder, os.R_OK | os.X_OK)


def refuse_unlisted(folder: Path, key: str = "") -> None:
    """key: before the folder's name in the error, as in "out=". Raises UserError for one that may not be listed."""
    if not may_be_listed(folder):
        raise UserError(f"{key}{folder}: may not be listed: mend its permissions, as by chmod u+rx")
