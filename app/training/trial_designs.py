"""A short sampling run in the middle of training: are designs proteins, and does the model know real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from app import sampling
from app.chem import atoms
from app.chem.residues import NUM_AATYPES
from app.data.datamodule import ProteinDataModule
from app.data.part import some_of
from app.evaluation.bonds import deviations, share_within
from app.evaluation.chain import ca_ca_validity, sequence_recovery
from app.evaluation.clashes import clashes
from app.evaluation.secondary_structure import contents, secondary_structure
from app.evaluation.tm_score import tm_score
from app.geometry.rotations import identity
from app.sampling.designs import seed_of
from app.sampling.inputs import Task
from app.sampling.trajectory import Trajectory
from app.training.held_out_losses import SEED
from app.training.strategies import is_sharded
from app.training.validation_settings import ValidationSettings
from app.types import ProteinBatch

if TYPE_CHECKING:
    from app.training.module import CodesignModule

COLUMNS = (
    "designs_bonds",  # share of peptide bonds of the right length
    "designs_angles",  # share of angles at them
    "designs_ca_ca",  # share of neighbouring CA at the right distance
    "designs_clashes",  # for each 100 residues
    "designs_helix",  # share of residues
    "designs_strand",
    "inverse_folding_recovery",  # share of residues that a new sequence has in common with the chain's own
    "forward_folding_tm_score",  # of the structure for its sequence against the chain's own
)

SHARES = ("designs_bonds", "designs_angles", "designs_ca_ca", "inverse_folding_recovery")
"""Columns in which a design without any bond, and a chain without any known residue, has no number."""

Piece = tuple[Task, Callable[[], ProteinBatch]]
"""What is sampled at once: the task, and what makes the batch."""


def pieces(settings: ValidationSettings, data: ProteinDataModule, has_head: bool) -> list[Piece]:
    """The whole run, the same on every rank. has_head: whether the model designs sequences."""
    found: list[Piece] = []
    for length in settings.lengths if settings.designs else ():
        names = [f"len{length}_{number}" for number in range(settings.designs)]
        parts = _within_budget([length] * len(names), data)
        found += [(Task.UNCONDITIONAL, partial(_noise, [names[k] for k in part], length)) for part in parts]
    if data.held_out is not None and settings.folds:
        chosen = some_of(data.held_out.names, settings.folds).tolist()
        parts = list(_within_budget([int(data.held_out.lengths[index]) for index in chosen], data))
        for task in (Task.FORWARD_FOLDING, *([Task.INVERSE_FOLDING] if has_head else [])):
            found += [(task, partial(data.read_held_out, [chosen[k] for k in part])) for part in parts]
    return found


def of_rank(found: Sequence[Piece], rank: int, world_size: int) -> list[Piece]:
    """A rank's share: as many pieces as everyone's, some of them twice where they do not come out even."""
    places = range(rank, -(-len(found) // world_size) * world_size, world_size)
    return [found[place % len(found)] for place in places]


def sampled(module: CodesignModule, task: Task, batch: ProteinBatch) -> dict[str, Tensor]:
    """By some of `COLUMNS`, a number [B] of each design, made in as many model calls as the recipe's validation says;
    in `SHARES` NaN where there is nothing to judge.

    A design depends on its task, its name and the weights alone.
    """
    made = sample(module, task, batch)
    mask, native = made.res_mask, batch.aatypes_1.cpu()
    if task is Task.FORWARD_FOLDING:
        ca = made.final_atom37[..., atoms.CA, :]
        return {"forward_folding_tm_score": tm_score(ca, batch.trans_1, mask)}
    if task is Task.INVERSE_FOLDING:
        known = mask.bool() & (native < NUM_AATYPES)
        return {"inverse_folding_recovery": sequence_recovery(made.final_aatypes, native, known)}
    return looks(made, batch.chain_idx.cpu())


def sample(module: CodesignModule, task: Task, batch: ProteinBatch) -> Trajectory:
    given = {}
    if task.gives_tokens:
        given["aatypes_1"] = batch.aatypes_1
    if task.gives_frames:
        given |= {"trans_1": batch.trans_1, "rotmats_1": batch.rotmats_1}
    # What a model keeps over all steps it makes from parameters, which are not there outside a call where sharded.
    model = partial(module.model) if is_sharded(module) else module.model
    return sampling.sample(
        model,
        task=task,
        sampler=module.recipe.sampler,
        device=module.device,
        steps=module.recipe.validation.steps,
        seed=[seed_of(SEED, f"{task.value}/{name}") for name in batch.names],
        keep_path=False,
        res_mask=batch.res_mask,
        chain_idx=batch.chain_idx,
        res_idx=batch.res_idx,
        **given,
    )


def looks(made: Trajectory, chain_idx: Tensor) -> dict[str, Tensor]:
    """What can be said of designs without knowing what they should be, [B] each; see `COLUMNS`."""
    atom37, bond, mask = made.final_atom37, made.peptide_bond, made.res_mask
    ca = atom37[..., atoms.CA, :]
    backbone = atom37[..., [atoms.N, atoms.CA, atoms.C], :]
    off = deviations(backbone, bond, mask)
    states = [
        contents(secondary_structure(one[here], chain[here], types[here]))
        for one, here, chain, types in zip(backbone, mask.bool(), chain_idx, made.final_aatypes, strict=True)
    ]
    return {
        "designs_bonds": share_within(off["c_n"]),
        "designs_angles": share_within(off["ca_c_n"], off["c_n_ca"]),
        "designs_ca_ca": ca_ca_validity(ca, bond),
        "designs_clashes": clashes(atom37, mask, chain_idx),
        "designs_helix": torch.tensor([one["helix"] for one in states]),
        "designs_strand": torch.tensor([one["strand"] for one in states]),
    }


def _within_budget(lengths: Sequence[int], data: ProteinDataModule) -> Iterator[list[int]]:
    """Indices of what is sampled together: as many of like length as the loader would put into a batch."""
    loader, part = data.loader_settings, []
    for index in sorted(range(len(lengths)), key=lambda k: lengths[k]):
        size = len(part) + 1
        if part and (size > loader.max_batch_size or size * lengths[index] ** 2 > loader.max_residues_squared):
            yield part
            part = []
        part.append(index)
    if part:
        yield part


def _noise(names: list[str], length: int) -> ProteinBatch:
    """Single chains of which nothing is known."""
    ones = torch.ones(len(names), length)
    numbers = torch.arange(1, length + 1).expand(len(names), length)
    return ProteinBatch(
        res_mask=ones,
        diffuse_mask=ones,
        plddt_mask=ones,
        chain_idx=ones.long(),
        res_idx=numbers,
        trans_1=torch.zeros(len(names), length, 3),
        rotmats_1=identity(len(names), length),
        aatypes_1=torch.full((len(names), length), NUM_AATYPES),
        names=names,
    )
