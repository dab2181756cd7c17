"""Where infer.py's manifest lies, and when it counts: for those who write it and those who look at designs."""

from pathlib import Path

MANIFEST = "manifest.json"

COPY = ".manifest.json"
"""Serves where the manifest was damaged or lost: nothing else tells a run's designs from other files."""


def is_emptied(folder: Path) -> bool:
    """Whether hidden files, the copy among them, are all that was left in a folder."""
    return all(entry.name.startswith(".") for entry in folder.iterdir())
