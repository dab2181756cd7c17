"""Coordinates as a page carries them: sixteen bits each, in base64."""

import base64
from typing import Any

import numpy as np

STEP = 0.01
"""Angstrom between one number and the next; more where a structure is larger than +-327 angstrom."""

ABSENT = -32768
"""Stands for an atom that is not there."""

LARGEST = 32767


def packed(points: np.ndarray) -> dict[str, Any]:
    """points: [..., 3] angstrom, NaN where absent. Returns `step`, angstrom, and `xyz`, base64 of little-endian int16:
    a coordinate is its number times the step."""
    widest = float(np.nanmax(np.abs(points), initial=0.0)) if np.isfinite(points).any() else 0.0
    step = max(STEP, widest / LARGEST)
    numbers = np.where(np.isfinite(points), np.rint(np.nan_to_num(points) / step), ABSENT)
    return {"step": step, "xyz": base64.b64encode(numbers.astype("<i2").tobytes()).decode()}


def packed_bytes(values: np.ndarray) -> str:
    """Base64 of whole numbers from 0 to 255."""
    return base64.b64encode(np.rint(np.nan_to_num(values)).clip(0, 255).astype(np.uint8).tobytes()).decode()
