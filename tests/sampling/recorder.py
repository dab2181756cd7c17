"""A model that shows what a sampler shows it, and what a task is given: shared by the tests of sampling."""

import pytest
import torch

from app.geometry import rotations
from app.sampling import SAMPLERS
from app.types import NoisyBatch, Prediction
from tests.factories import protein_batch

MENDED, LEGACY = SAMPLERS["euler"], SAMPLERS["multiflow_legacy"]
QUIET = MENDED.model_copy(update={"token_noise": 0.0})
PLAIN = MENDED.model_copy(update={"token_step": "plain", "token_noise": 2.0, "token_temperature": 1.0})
UNIFORM = PLAIN.model_copy(update={"tokens": "uniform"})
EVERY = {"euler": MENDED, "multiflow_legacy": LEGACY, "plain": PLAIN, "uniform": UNIFORM}
STEPS = 16  # with fewer, Multiflow's rotations overshoot their aim, and rounding grows from step to step
TASKS = ("unconditional", "forward_folding", "inverse_folding", "partial")

every_sampler = pytest.mark.parametrize("sampler", EVERY.values(), ids=EVERY)
every_task = pytest.mark.parametrize("task", TASKS)


class Recorder:
    """A model that keeps what it was shown. It pulls frames towards the origin and is sure of no residue type."""

    def __init__(self):
        self.seen: list[NoisyBatch] = []
        self.said: list[Prediction] = []

    def __call__(self, batch: NoisyBatch) -> Prediction:
        self.seen.append(batch.map(torch.clone))
        source = torch.Generator().manual_seed(len(self.seen))
        logits = torch.randn(*batch.res_mask.shape, 21, generator=source)
        turn = rotations.exp(0.1 * torch.randn(*batch.res_mask.shape, 3, generator=source))
        said = Prediction(batch.trans_t * 0.5, batch.rotmats_t @ turn, logits, logits[..., :20].argmax(-1))
        self.said.append(said)
        return said


def given(task: str, size: int = 2, length: int = 9) -> dict[str, torch.Tensor]:
    clean = protein_batch(size, length)
    if task == "forward_folding":
        return {"aatypes_1": clean.aatypes_1}
    if task == "inverse_folding":
        return {"trans_1": clean.trans_1, "rotmats_1": clean.rotmats_1}
    if task == "partial":
        diffuse_mask = torch.ones(size, length)
        diffuse_mask[0, 2:5] = 0
        everything = {name: getattr(clean, name) for name in ("trans_1", "rotmats_1", "aatypes_1")}
        return {"diffuse_mask": diffuse_mask} | everything
    return {"lengths": [length] * size}
