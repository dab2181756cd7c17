"""The last look at a batch before the model sees it."""

import torch

from app.errors import UserError
from app.types import ProteinBatch


def refuse_not_finite(batch: ProteinBatch) -> None:
    """Raises UserError naming the examples whose coordinates are not all finite, padding included."""
    finite = batch.trans_1.isfinite().flatten(1).all(1) & batch.rotmats_1.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        bad = torch.nonzero(~finite).flatten().tolist()
        names = ", ".join(batch.names[index] if batch.names else f"number {index} of the batch" for index in bad)
        raise UserError(f"data: NaN or infinite coordinates in {names}: mend or remove the file")
