"""The one place that converts between angstrom (files, flow, losses) and nanometre (the trunk)."""

from app.types import Frames

ANGSTROM_PER_NM = 10.0


def to_nanometre(frames: Frames) -> Frames:
    """Frames with translations in angstrom -> the same in nanometre."""
    return Frames(frames.rotmats, frames.trans * (1.0 / ANGSTROM_PER_NM))


def to_angstrom(frames: Frames) -> Frames:
    """Frames with translations in nanometre -> the same in angstrom."""
    return Frames(frames.rotmats, frames.trans * ANGSTROM_PER_NM)
