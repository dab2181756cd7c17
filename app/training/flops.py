"""FLOPs of training a model, for the log's MFU, counted and not estimated."""

from functools import cached_property

import numpy as np

from app.devices import CPU
from app.ops.settings import OPERATIONS, KernelSettings
from app.training.estimate import needs_of
from app.training.recipe import Recipe

LENGTHS = (16, 32, 48, 64)
"""Lengths at which a forward pass is counted: no operation takes more than the cube of the length."""

BACKWARD = 2
"""FLOPs of a backward pass in forward passes: each product has two for its gradients. What is computed anew to save
memory does not count, as MFU is meant (Chowdhery et al. 2022, appendix B)."""


class TrainFlops:
    """`flops(size, length)`: FLOPs of a forward and a backward pass over a batch, the average share of passes for
    self-conditioning added. Only products of matrices count, an addition and a multiplication each, as the reference
    backends have them: what a model takes does not depend on its kernels."""

    def __init__(self, recipe: Recipe):
        reference = KernelSettings(**dict.fromkeys(OPERATIONS, "reference"))
        self.recipe = recipe.model_copy(update={"kernels": reference})

    def __call__(self, size: int, length: int) -> float:
        passes = 1 + BACKWARD + self.recipe.flow.self_condition_share
        return size * passes * float(np.polyval(self._of_length, length))

    @cached_property
    def _of_length(self) -> np.ndarray:
        """The polynomial that a forward pass's FLOPs are, highest power first."""
        needs = needs_of(self.recipe, CPU)
        counts = [needs.sampling(1, length).flops for length in LENGTHS]
        return np.linalg.solve(np.vander(np.array(LENGTHS, dtype=np.float64)), counts)
