"""Batches in validation that do not fit into memory."""

import dataclasses
import logging
from collections.abc import Callable
from itertools import chain

from torch import Tensor

from app.data.ledger import Ledger, in_halves
from app.training.memory import Alone
from app.types import ProteinBatch

log = logging.getLogger(__name__)

Measured = list[tuple[list[str], dict[str, Tensor] | None]]
"""By parts of a batch: the names of its examples, and by column a number [B] of each; None where memory did not suffice
for an example alone, which is left out."""


def measured_in_halves(
    run: Callable[[ProteinBatch], dict[str, Tensor]], batch: ProteinBatch, ledger: Ledger, ranks: Alone
) -> Measured:
    """What `run` makes of the batch, or where memory does not suffice of its halves, as `app.data.ledger.in_halves` has
    it; an example that is too large alone is left out, with a warning.

    ranks: `Lockstep` where other ranks wait for this one in `run`: all halve together then, and one that has a single
    example left takes it twice, and counts it once.
    """
    size, length = batch.res_mask.shape

    def attempt(first: int, last: int) -> Measured | None:
        is_extra = first == last  # other ranks have an example left, and wait
        part = _part(batch, slice(1) if is_extra else slice(first, last))
        shape = (len(part.names), length)
        made = ranks.attempt(lambda: run(part), batch.device, failed=lambda: ledger.note([shape]))
        if made is None and ranks.anyones(last - first > 1):
            return None
        if is_extra:
            return []
        if made is None:
            log.warning("validation leaves out %s: out of memory at %d residues", part.names[0], length)
        return [(part.names, made)]

    parts = in_halves(attempt, size, length, ledger, ranks.anyones)
    return list(chain.from_iterable(parts))


def _part(batch: ProteinBatch, rows: slice) -> ProteinBatch:
    return dataclasses.replace(batch.map(lambda tensor: tensor[rows]), names=batch.names[rows])
