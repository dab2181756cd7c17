"""The files of a design: its structure, its way from noise, and a table of its steps."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.chem import atoms
from app.sampling.designs import Design
from app.sampling.inputs import Task
from app.sampling.layout import Layout
from app.sampling.request import Request
from app.sampling.settings import SamplerSettings
from app.sampling.step_records import write_step_records
from app.sampling.trajectory import Trajectory
from app.structure.write import write_mmcif, write_pdb

STRUCTURES, TRAJECTORIES, STEPS = "structures", "trajectories", "steps"

EVERYTHING = {"formats": ["pdb", "mmcif"], "trajectories": True, "step_records": True}
"""Settings with which all files are written that a design can have."""

_SLOTS = torch.arange(atoms.NUM_ATOM37)
_BACKBONE = torch.isin(_SLOTS, torch.tensor((atoms.N, atoms.CA, atoms.C, atoms.O)))  # [37]
_DESIGNED = _BACKBONE | (_SLOTS == atoms.CB)  # what frames place


def places(request: Request, design_id: str) -> dict[str, str]:
    """By kind, the path in the run's folder of each file that is asked for of a design."""
    found = {}
    if "pdb" in request.formats:
        found["pdb"] = f"{STRUCTURES}/{design_id}.pdb"
    if "mmcif" in request.formats:
        found["mmcif"] = f"{STRUCTURES}/{design_id}.cif"
    if request.trajectories:
        found |= {kind: f"{TRAJECTORIES}/{design_id}_{kind}.pdb" for kind in ("path", "clean")}
    if request.step_records:
        found["steps"] = f"{STEPS}/{design_id}.csv"
    return found


def outputs(
    request: Request, sampler: SamplerSettings, design: Design, trajectory: Trajectory
) -> dict[str, Callable[[Path], None]]:
    """What is to be written of a design: the path in the run's folder, and what writes it when given the whole path.

    trajectory: of this design alone (B = 1). B-factors are the model's certainty of each token, 0 to 100. What was
    given is written as it was given: in partial design atoms, side chains included, where the file has them. A writer
    raises UserError or OSError, leaving no file, where that cannot be.
    """
    task, place, files = request.sampled, places(request, design.id), {}
    final = structure(
        task, design, trajectory.final_atom37[0], trajectory.final_aatypes[0], trajectory.final_certainty[0]
    )
    fitting = _names(design.layout.for_pdb())
    if "pdb" in place:
        files[place["pdb"]] = partial(write_pdb, **final, **fitting)
    if "mmcif" in place:
        files[place["mmcif"]] = partial(write_mmcif, **final, **_names(design.layout))
    if "path" in place:
        path = trajectory.path_atom37[0], trajectory.path_aatypes[0], trajectory.path_certainty[0]
        clean = trajectory.clean_atom37[0], trajectory.clean_aatypes[0], trajectory.clean_certainty[0]
        files[place["path"]] = partial(write_pdb, **structure(task, design, *path), **fitting)
        files[place["clean"]] = partial(write_pdb, **structure(task, design, *clean), **fitting)
    if "steps" in place:
        files[place["steps"]] = partial(
            write_step_records, sampler=sampler, task=task, design=design, trajectory=trajectory
        )
    return files


def structure(task: Task, design: Design, atom37: Tensor, aatypes: Tensor, certainty: Tensor) -> dict[str, Any]:
    """What the writers of structures take but for names, with all that was given in its place.

    task: the sampler's. atom37: [..., N, 37, 3] angstrom; aatypes, certainty: [..., N].
    """
    given, mask = design.given, _DESIGNED.expand(design.length, -1)
    if given is not None:
        aatypes = torch.where(design.designs_sequence(task), aatypes, given.aatypes)
        if task.gives_frames or given.kept is not None:
            atom37 = atom37 + given.centre  # back to where the file has it
        if given.kept is not None:
            in_file, fixed = given.kept.atom_mask, given.kept.fixed[:, None]
            stay = fixed | (_BACKBONE & task.gives_frames)  # side chains belong to types that may be others now
            atom37 = torch.where((in_file & stay)[..., None], given.kept.atom37, atom37)
            mask = torch.where(fixed, in_file, mask)
    return {
        "atom37": atom37,
        "aatype": aatypes,
        "b_factors": 100 * certainty,
        "atom_mask": mask,
    }


def _names(layout: Layout) -> dict[str, Any]:
    """And the names of chains and residues."""
    return {
        "chain_idx": layout.chain_idx,
        "res_idx": layout.numbers,
        "ins_codes": layout.ins_codes,
        "chain_ids": layout.chain_ids,
    }
