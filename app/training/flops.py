"""FLOPs of training a model, for the log's MFU, counted and not estimated."""

from functools import cached_property

import numpy as np

from app.devices import CPU
from app.ops.settings import OPERATIONS, KernelSettings
from app.phase import ByPhase
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
        forward, last = (float(np.polyval(polynomial, length)) for polynomial in self._of_length)
        return size * ((1 + self.recipe.flow.self_condition_share) * forward + BACKWARD * last)

    @cached_property
    def _of_length(self) -> tuple[np.ndarray, np.ndarray]:
        """The polynomials that FLOPs are in the length, highest power first: of a forward pass in training, and of what
        has gradients of it, since the trunk recycles without."""
        number = self.recipe.model.trunk.num_recycles
        number = number.train if isinstance(number, ByPhase) else number
        if not number:
            whole = self._forward(self.recipe)
            return whole, whole
        once, twice = (self._forward(_recycling(self.recipe, times)) for times in (1, 2))
        trunk = twice - once
        return once + (number - 1) * trunk, once - trunk

    def _forward(self, recipe: Recipe) -> np.ndarray:
        needs = needs_of(recipe, CPU)
        counts = [needs.sampling(1, length).flops for length in LENGTHS]
        return np.linalg.solve(np.vander(np.array(LENGTHS, dtype=np.float64)), counts)


def _recycling(recipe: Recipe, times: int) -> Recipe:
    trunk = recipe.model.trunk.model_copy(update={"num_recycles": times})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"trunk": trunk})})
