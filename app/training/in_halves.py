"""Batches in validation that do not fit into memory."""

import dataclasses
import logging
from collections.abc import Callable

from torch import Tensor

from app.training.memory import Alone
from app.types import ProteinBatch

log = logging.getLogger(__name__)

Measured = list[tuple[list[str], dict[str, Tensor]]]
"""By parts of a batch: the names of its examples, and by column a number [B] of each."""


def in_halves(run: Callable[[ProteinBatch], dict[str, Tensor]], batch: ProteinBatch, ranks: Alone) -> Measured:
    """What `run` makes of the batch, or where memory does not suffice of its halves; an example that is too large alone
    is left out, with a warning.

    ranks: `Lockstep` where other ranks wait for this one in `run`: all halve together then, and one that has a single
    example left takes it twice, and counts it once.
    """
    size = len(batch.names)
    if (made := ranks.attempt(lambda: run(batch), batch.device, failed=lambda: None)) is not None:
        return [(batch.names, made)]
    if not ranks.anyones(size > 1):
        log.warning("validation leaves out %s: out of memory at %d residues", batch.names[0], batch.res_mask.shape[1])
        return []
    middle = (size + 1) // 2
    found = in_halves(run, _part(batch, slice(middle)), ranks)
    rest = in_halves(run, _part(batch, slice(middle, size) if size > 1 else slice(1)), ranks)
    return found + rest if size > 1 else found


def _part(batch: ProteinBatch, rows: slice) -> ProteinBatch:
    return dataclasses.replace(batch.map(lambda tensor: tensor[rows]), names=batch.names[rows])
