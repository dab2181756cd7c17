"""Batches in validation that do not fit into memory."""

import dataclasses
import logging
from collections.abc import Callable

from torch import Tensor

from app.devices import is_out_of_memory
from app.types import ProteinBatch

log = logging.getLogger(__name__)

Measured = list[tuple[list[str], dict[str, Tensor]]]
"""By parts of a batch: the names of its examples, and by column a number [B] of each."""


def in_halves(run: Callable[[ProteinBatch], dict[str, Tensor]], batch: ProteinBatch, together: bool) -> Measured:
    """What `run` makes of the batch, or where memory does not suffice of its halves; an example that is too large alone
    is left out, with a warning.

    together: all ranks have to call the model equally often, so that the error goes through.
    """
    try:
        return [(batch.names, run(batch))]
    except Exception as error:
        if together or not is_out_of_memory(error):
            raise
    # The error is let go of before anything is tried again: its frames hold the memory of what failed.
    size = len(batch.names)
    if size == 1:
        log.warning("validation leaves out %s: out of memory at %d residues", batch.names[0], batch.res_mask.shape[1])
        return []
    halves = slice(size // 2), slice(size // 2, size)
    return [part for half in halves for part in in_halves(run, _part(batch, half), together)]


def _part(batch: ProteinBatch, rows: slice) -> ProteinBatch:
    return dataclasses.replace(batch.map(lambda tensor: tensor[rows]), names=batch.names[rows])
