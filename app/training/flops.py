"""FLOPs of training a model, for the log's MFU, counted and not estimated."""

from functools import cached_property

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from app.chem.residues import NUM_TOKENS
from app.model.codesign import CodesignModel, ModelSettings
from app.ops import select
from app.ops.settings import OPERATIONS, KernelSettings
from app.types import NoisyBatch

LENGTHS = (16, 32, 48, 64)
"""Lengths at which a forward pass is counted: no operation takes more than the cube of the length."""

BACKWARD = 2
"""FLOPs of a backward pass in forward passes: each product has two for its gradients. What is computed anew to save
memory does not count, as MFU is meant (Chowdhery et al. 2022, appendix B)."""


class TrainFlops:
    """`flops(size, length)`: FLOPs of a forward and a backward pass over a batch, the average share of passes for
    self-conditioning added. Only products of matrices count, an addition and a multiplication each, as the reference
    backends have them."""

    def __init__(self, settings: ModelSettings, self_condition_share: float = 0.0):
        self.settings = settings
        self.passes = 1 + BACKWARD + self_condition_share

    def __call__(self, size: int, length: int) -> float:
        return size * self.passes * float(np.polyval(self._of_length, length))

    @cached_property
    def _of_length(self) -> np.ndarray:
        """The polynomial that a forward pass's FLOPs are, highest power first."""
        counts = [forward_flops(self.settings, length) for length in LENGTHS]
        return np.linalg.solve(np.vander(np.array(LENGTHS, dtype=np.float64)), counts)


@torch.no_grad()
def forward_flops(settings: ModelSettings, length: int) -> int:
    """FLOPs of a forward pass over one protein, counted on tensors without numbers."""
    reference = KernelSettings(**dict.fromkeys(OPERATIONS, "reference"))
    with torch.device("meta"), select.using(reference), FlopCounterMode(display=False) as counter:
        CodesignModel(settings).eval()(_batch(length))
    return counter.get_total_flops()


def _batch(length: int) -> NoisyBatch:
    time, present, place = torch.ones(1, 1), torch.ones(1, length), torch.ones(1, length, dtype=torch.int64)
    return NoisyBatch(
        res_mask=present,
        diffuse_mask=present,
        chain_idx=place,
        res_idx=place,
        so3_t=time,
        r3_t=time,
        cat_t=time,
        trans_t=torch.ones(1, length, 3),
        rotmats_t=torch.ones(1, length, 3, 3),
        aatypes_t=place,
        trans_sc=torch.ones(1, length, 3),
        aatypes_sc=torch.ones(1, length, NUM_TOKENS),
    )
