"""Environment variables that libraries read when they are imported, set before torch is. Imports no torch itself."""

from __future__ import annotations

import os
import sys

# Only where the user's shell says nothing: the shell wins.
DEFAULTS = {
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",  # on a Mac, run on the CPU what the GPU backend lacks, rather than stop
}

_origin: dict[str, str] = {}


def prepare() -> None:
    """Set the defaults. To be called before anything imports torch; calling it again changes nothing."""
    for name, value in DEFAULTS.items():
        if name not in os.environ:
            os.environ[name] = value
            _origin[name] = "default, but set after torch was imported" if "torch" in sys.modules else "default"


def report() -> dict[str, str]:
    """Each variable with its value and where that came from, for the log: `{"PYTORCH_...": "1 (default)"}`."""
    return {name: f"{os.environ.get(name, 'unset')} ({_origin.get(name, 'shell')})" for name in DEFAULTS}
