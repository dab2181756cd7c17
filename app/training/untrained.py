"""What a checkpoint was not trained for."""

from collections.abc import Iterator, Sequence
from typing import Any

from app.sampling.designs import Design
from app.sampling.inputs import Task
from app.sampling.request import Request
from app.training.recipe import Recipe


def untrained(recipe: Recipe, request: Request, designs: Sequence[Design]) -> list[str]:
    """Warnings for a run that asks of a checkpoint what its recipe never trained; empty where it was trained for all.

    Whether it saw several chains is judged by the settings of its data, where those tell: the demo set, `chains:
    separate` of a folder of structures and Multiflow's filter `num_chains: [1]` mean single ones.
    """
    told = f"this checkpoint ({recipe.name}) was not trained for"
    return [f"{told} {what}" for what in _lacking(recipe, request, designs)]


def _lacking(recipe: Recipe, request: Request, designs: Sequence[Design]) -> Iterator[str]:
    flow, task = recipe.flow, request.sampled
    if not flow.separate_times and (task.gives_tokens or task.gives_frames):
        yield f"{request.told}: with flow.separate_times=false it never saw one of sequence and structure clearer"
    if not flow.corrupt_tokens and not task.gives_tokens:
        yield f"{request.told}: with flow.corrupt_tokens=false it always saw the sequence"
    if not (flow.corrupt_translations and flow.corrupt_rotations) and not task.gives_frames:
        yield f"{request.told}: without flow.corrupt_translations and flow.corrupt_rotations it saw the structure"
    if request.task is Task.PARTIAL and flow.partial.probability == 0:
        yield f"{request.told}: with flow.partial.probability=0 it never saw residues fixed among others"
    if any(len(design.layout.chain_ids) > 1 for design in designs) and _only_single_chains(recipe.data):
        yield "several chains: its data were single ones"


def _only_single_chains(data: dict[str, Any]) -> bool:
    """False where the data may have had complexes, or where that is not known."""
    match data.get("kind"):
        case "demo":
            return True
        case "structures":
            return data.get("chains", "separate") == "separate"
        case "multiflow":
            return list((data.get("filter") or {}).get("num_chains") or ()) == [1]
    return False
