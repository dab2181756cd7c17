"""What a finished design's record says of it."""

from typing import Any

from app.chem.residues import to_sequence
from app.sampling.designs import Design
from app.sampling.flags import flags
from app.sampling.inputs import Task
from app.sampling.measures import measures
from app.sampling.outputs import structure
from app.sampling.trajectory import Trajectory


def findings(task: Task, design: Design, trajectory: Trajectory) -> dict[str, Any]:
    """task: the sampler's. trajectory: of this design alone (B = 1).

    sequence: one letter a residue. flags: what looks wrong, see `app.sampling.flags`. And `app.sampling.measures`.
    """
    aatypes, bonded = trajectory.final_aatypes[0], trajectory.peptide_bond[0]
    atom37 = structure(task, design, trajectory.final_atom37[0], aatypes, trajectory.final_certainty[0])["atom37"]
    return {
        "sequence": to_sequence(aatypes),
        "flags": flags(task, design, atom37, aatypes, bonded),
        **measures(task, design, atom37, aatypes, bonded),
    }
