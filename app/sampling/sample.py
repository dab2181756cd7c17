"""The sampling loop (Campbell et al. 2024, algorithm 1), for all tasks: co-design, forward folding, inverse
folding, partial design."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from app.devices import seeded
from app.errors import UserError
from app.sampling.certainty import certainty
from app.sampling.graph import Replayed
from app.sampling.inputs import Start, Task, prepare, sampler_of, task_of
from app.sampling.prepared import Prepared, prepared
from app.sampling.schedule import times
from app.sampling.settings import SamplerSettings
from app.sampling.step import Step
from app.sampling.trajectory import Recorder, Trajectory
from app.types import NoisyBatch, Prediction


@torch.no_grad()
def sample(
    model: Callable[[NoisyBatch], Prediction],
    *,
    task: str | Task = "unconditional",
    steps: int = 100,
    sampler: str | SamplerSettings = "euler",
    seed: int | Sequence[int] = 0,
    lengths: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    keep_path: bool = True,
    on_step: Callable[[int], None] | None = None,
    trans_0: Tensor | None = None,
    rotmats_0: Tensor | None = None,
    aatypes_0: Tensor | None = None,
    trans_1: Tensor | None = None,
    rotmats_1: Tensor | None = None,
    aatypes_1: Tensor | None = None,
    res_mask: Tensor | None = None,
    diffuse_mask: Tensor | None = None,
    chain_idx: Tensor | None = None,
    res_idx: Tensor | None = None,
) -> Trajectory:
    """Designs from noise in `steps` model calls.

    model: called with a NoisyBatch on `device` (default: where its parameters are, else the CPU). To be in eval mode.
    As it is, or made fast by `app.sampling.prepared`.
    sampler: "euler", "multiflow_legacy", or settings. seed: one a design, or of the first, the others counting on from
    it; a design depends on its own seed only, save where the model drops out in inference: then on all of its batch.
    lengths: residues of each design, where no tensor gives the shape.
    keep_path: keep every point of the way, else the last. on_step: called with the number of model calls made so far;
    a GPU may still be at work on them.

    trans_0 [B, N, 3] (angstrom), rotmats_0 [B, N, 3, 3], aatypes_0 [B, N]: the noise, drawn if not given.
    trans_1, rotmats_1, aatypes_1: what the task gives (forward folding the last, inverse folding the first two), and
    the residues that stay as they are where diffuse_mask is 0, in any task; partial design is nothing else. res_mask,
    diffuse_mask [B, N]: all 1 if not given.
    chain_idx, res_idx [B, N]: one chain counted from 1 if not given.

    Raises UserError for an unknown task or sampler, and for inputs that are missing, misshapen or not finite.
    """
    task, sampler = task_of(task), sampler_of(sampler)
    if steps < 2:
        raise UserError(f"steps={steps}: sampling takes at least 2 steps")
    given = {"trans_0": trans_0, "rotmats_0": rotmats_0, "aatypes_0": aatypes_0, "trans_1": trans_1,
             "rotmats_1": rotmats_1, "aatypes_1": aatypes_1, "res_mask": res_mask, "diffuse_mask": diffuse_mask,
             "chain_idx": chain_idx, "res_idx": res_idx}  # fmt: skip
    ready = model if isinstance(model, Prepared) else prepared(model, cuda_graph=False)
    start = prepare(task, sampler, seed, lengths, torch.device(device or ready.device), given)
    rows = times(sampler, task, steps, start.res_mask.device)
    with ready.at_its_precision():
        return _run(Step(ready, start, task, sampler, rows[0]), rows, keep_path, on_step)


def _run(step: Step, rows: Tensor, keep_path: bool, on_step: Callable[[int], None] | None) -> Trajectory:
    """The loop. Nothing in it waits for the device: what steps read lies there, what they make stays or is sent off."""
    model, start, steps = step.model, step.start, len(rows)
    draws = start.draws.uniform_ahead(steps - 1, *step.draws, ahead=1 if model.draws_in_inference else None)
    path, clean = Recorder(keep_path, steps + 1), Recorder(keep_path, steps)

    def sure_of(sequence: Tensor) -> Tensor:
        return certainty(sequence, point.logits_sc, start)

    advance = Replayed(step, model.on_capture) if model.cuda_graph else step

    point = step.begin()
    path.add(*point[:3], sure_of(point.tokens))
    for call in range(steps - 1):
        before = point.tokens.clone()  # a replay writes over its point
        with _own_numbers(model, start):
            uniform = next(draws) if model.has_sequence_head else None
            estimate, point = advance(point, rows[call], uniform)
        if keep_path:
            clean.add(*estimate, sure_of(estimate.tokens))
            path.add(*point[:3], sure_of(point.tokens))
        if on_step is not None:
            on_step(call + 1)
    # The last call is a step of which the estimate alone counts.
    aatypes = point.tokens.clone()
    row, seen = (rows[-2], before) if step.sampler.stale_final_call else (rows[-1], aatypes)
    with _own_numbers(model, start):
        estimate, point = advance(point._replace(tokens=seen), row, uniform)
    designs = step.designs(estimate, aatypes)
    clean.add(*designs, sure_of(designs.tokens))
    path.add(*designs, sure_of(designs.tokens))
    if on_step is not None:
        on_step(steps)
    *path_points, path_certainty = path.stacked()
    *clean_points, clean_certainty = clean.stacked()
    return Trajectory(
        *path_points, *clean_points, path_certainty, clean_certainty, start.peptide_bond.cpu(), start.res_mask.cpu()
    )


def _own_numbers(model: Prepared, start: Start) -> AbstractContextManager:
    """Where a model draws in inference, torch's generators follow the designs' seeds, and are after it as before."""
    return seeded(start.draws.seed(), start.res_mask.device) if model.draws_in_inference else nullcontext()
