"""A table of the steps of a design, for looking at its way from noise."""

import csv
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from app.chem.backbone import CA_CA_TRANS
from app.chem.residues import MASK_TOKEN
from app.geometry.superpose import superpose
from app.sampling.designs import Design
from app.sampling.inputs import Task
from app.sampling.schedule import times
from app.sampling.settings import SamplerSettings
from app.sampling.trajectory import Trajectory
from app.structure.atomic import replacing

CA_CA_TOLERANCE = 0.4
"""Angstrom either side of 3.80 within which neighbouring CA count as bonded, as in `app.evaluation.chain`."""

COLUMNS = {
    "step": "model call, from 1",
    "structure_t": "time of the structure that the model was told, 0 noise to 1 data",
    "token_t": "time of the tokens",
    "ca_moved": "root mean square of how far the step moved the CA that are designed, angstrom",
    "masked": "designed residues without a type after the step",
    "changed": "tokens that the step changed",
    "certainty": "mean of the model's estimate of the designed types, 0 to 100",
    "ca_rmsd": "CA RMSD of the model's estimate from the finished design, superposed, angstrom",
    "ca_gaps": "neighbours in the estimate whose CA are not within 0.4 of 3.80 angstrom",
    "radius_of_gyration": "of the estimate's CA, angstrom",
}
"""What the columns of steps/<id>.csv hold. What there is nothing to measure of is empty."""


def write_step_records(
    path: Path, sampler: SamplerSettings, task: Task, design: Design, trajectory: Trajectory
) -> None:
    """trajectory: of this design alone, with its whole path. task: the sampler's. Raises OSError."""
    with replacing(path) as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(step_records(sampler, task, design, trajectory))


def step_records(
    sampler: SamplerSettings, task: Task, design: Design, trajectory: Trajectory
) -> Iterator[dict[str, float | int | None]]:
    """A row of `COLUMNS` for each model call; the last call's step is the one to the finished design."""
    sequence, places = design.designs_sequence(task), design.designs_structure(task)
    bonded = trajectory.peptide_bond[0, :-1]
    ca, tokens = trajectory.path_trans[0], trajectory.path_aatypes[0]
    estimate, certainty = trajectory.clean_trans[0], trajectory.clean_certainty[0]
    calls = len(estimate)
    superposed = superpose(estimate, ca[-1].expand_as(estimate), torch.ones(calls, design.length))
    told = times(sampler, task, calls, torch.device("cpu"))[:, :2].tolist()
    if sampler.stale_final_call:
        told[-1] = told[-2]
    for call in range(calls):
        gap = (estimate[call].diff(dim=0).norm(dim=-1) - CA_CA_TRANS).abs() > CA_CA_TOLERANCE
        yield {
            "step": call + 1,
            "structure_t": round(told[call][0], 4),
            "token_t": round(told[call][1], 4),
            "ca_moved": _root_mean_square((ca[call + 1] - ca[call])[places]),
            "masked": int((tokens[call + 1] == MASK_TOKEN)[sequence].sum()),
            "changed": int((tokens[call + 1] != tokens[call]).sum()),
            "certainty": _mean(100 * certainty[call][sequence]),
            "ca_rmsd": _root_mean_square(superposed[call] - ca[-1]),
            "ca_gaps": int((gap & bonded).sum()),
            "radius_of_gyration": _root_mean_square(estimate[call] - estimate[call].mean(0)),
        }


def _root_mean_square(vectors: Tensor) -> float | None:
    """Of the lengths of vectors [N, 3]."""
    return round(float(vectors.square().sum(-1).mean().sqrt()), 3) if len(vectors) else None


def _mean(values: Tensor) -> float | None:
    return round(float(values.mean()), 2) if len(values) else None
