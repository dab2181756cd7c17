"""Digests of what manifest and journals say, so that what was altered or damaged since is not believed."""

import hashlib
import json
from typing import Any

_KEY = "sha256"


def sealed(said: dict[str, Any]) -> dict[str, Any]:
    """With the digest of all its other fields, which are those of JSON. One that it had is replaced."""
    return said | {_KEY: _digest(said)}


def is_sealed(said: dict[str, Any]) -> bool:
    """Whether it says what it was, as manifests do from their third format on."""
    return _KEY in said


def is_whole(said: Any) -> bool:
    """Whether it is as it was sealed."""
    return isinstance(said, dict) and said.get(_KEY) == _digest(said)


def _digest(said: dict[str, Any]) -> str:
    fields = {key: value for key, value in said.items() if key != _KEY}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
