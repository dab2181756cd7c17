"""How near invariant point attention comes to the least it can take: the time to read its pairs from memory once."""

from collections.abc import Sequence

import torch

from app.bench.case import REFERENCE
from app.bench.operation import TRAIN
from app.bench.run import Row
from app.bench.timing import medians

IPA, WIDTH = "invariant_point_attention", 128
"""The operation, and the width c_z of its example's pairs."""

_COPIED = 2**30  # bytes, far more than any cache holds


def copy_bandwidth(device: str) -> float:
    """Bytes read and written a second by a copy, in which both count."""
    given = torch.ones(_COPIED, dtype=torch.int8, device=device)
    made = torch.empty_like(given)
    return 2 * _COPIED / medians({"copy": lambda: made.copy_(given)}, torch.device(device))["copy"]


def beside_reading(rows: Sequence[Row], bandwidth: float | None) -> list[str]:
    """Of each backend but the reference: its forward pass as a multiple of reading the pairs once, and its backward
    pass, the difference between the two cases, as one of reading and writing them. bandwidth: None: says nothing."""
    if bandwidth is None:
        return []
    at = {(row.case, row.backend, row.dtype, row.length, row.batch): row.seconds for row in rows}
    found = []
    for (case, backend, dtype, length, batch), forward in at.items():
        if case != IPA or backend == REFERENCE or forward is None:
            continue
        read = batch * length**2 * WIDTH * getattr(torch, dtype).itemsize / bandwidth
        told = f"{IPA} {dtype} {length} x {batch} {backend}: forward {forward / read:.1f} times reading the pairs once"
        both = at.get((IPA + TRAIN, backend, dtype, length, batch))
        if both is not None:
            told += f", backward {(both - forward) / (2 * read):.1f} times reading and writing them"
        found.append(f"{told} ({read * 1e6:.1f} us at {bandwidth / 1e12:.2f} TB/s)")
    return found
