"""What an inference run is asked for: the keys of recipes/infer.yaml less the sampler, checked."""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from app.devices import DeviceName, Precision
from app.errors import UserError
from app.sampling.inputs import Task
from app.structure.write import CHAIN_LETTERS

MAX_RESIDUES = 2056
"""Longest design. The position embeddings have this as their longest period (app.model.node_embed): beyond it residues
far apart look alike, and no model was trained there.
"""

_OF_A_TASK = {
    Task.UNCONDITIONAL: ("lengths", "samples_per_length"),
    Task.FORWARD_FOLDING: ("input", "samples", "chains"),
    Task.INVERSE_FOLDING: ("input", "samples", "chains"),
    Task.PARTIAL: ("input", "fix", "what", "samples"),
}
_TO_BE_GIVEN = ("lengths", "input", "fix")
_LENGTH = re.compile(r"[0-9]+(\+[0-9]+)*")


class Request(BaseModel):
    """Raises UserError for a key that the task needs and lacks, and for one that it has no use for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task
    out: Path
    ckpt: Path | None = Field(None, description="the checkpoint, for the manifest; None: the model was never in a file")
    lengths: list[int | str] | None = Field(None, description="several chains: 60+40")
    samples_per_length: int | None = Field(None, gt=0, description="None: 1")
    input: Path | None = None
    samples: int | None = Field(None, gt=0, description="designs of each chain or sequence; None: 1")
    chains: Literal["separate", "together"] | None = Field(None, description="None: separate")
    fix: list[str] | None = Field(None, description="residues that stay: see app.sampling.fix")
    what: Literal["sequence", "structure", "both"] | None = Field(None, description="is designed; None: both")
    temperature: float | None = Field(
        None, ge=0.001, le=100, allow_inf_nan=False, description="of the tokens; None: the sampler's"
    )
    use_ema: bool | Literal["auto"] = Field("auto", description="auto: where the checkpoint has an average")
    steps: int = Field(100, ge=2, description="model calls")
    seed: int = Field(0, ge=0)
    device: DeviceName | Literal["gpu"] = "auto"
    devices: PositiveInt | Literal["auto", -1] = Field(1, description="of this machine, a process each; auto, -1: all")
    num_nodes: int = Field(1, gt=0, description="machines, by torchrun or SLURM")
    formats: list[Literal["pdb", "mmcif"]] = ["pdb", "mmcif"]
    trajectories: bool = False
    step_records: bool = False
    max_batch_size: int = Field(64, gt=0, description="designs")
    max_residues_squared: PositiveInt | Literal["auto"] = Field(
        "auto", description="B * N^2 of a batch; auto: what fits into the device's memory"
    )
    precision: Precision = Field("float32", description="of the network; frames and coordinates are float32 always")
    compile: bool = False
    cuda_graph: bool | Literal["auto"] = Field("auto", description="auto: on an NVIDIA GPU")
    progress_bar: bool = True
    report: bool = Field(True, description="write report.html at the end")
    report_viewer: Path | None = Field(None, description="3Dmol-min.js for it; None: the installed one")

    @property
    def sampled(self) -> Task:
        """The task that the sampler has: of partial design that one which gives what is not designed."""
        if self.task is not Task.PARTIAL:
            return self.task
        return {"sequence": Task.INVERSE_FOLDING, "structure": Task.FORWARD_FOLDING}.get(self.what, Task.PARTIAL)

    @property
    def told(self) -> str:
        """The task in the user's words."""
        return f"task={self.task.value}" + (f" what={self.what}" if self.what else "")

    @field_validator("lengths", mode="before")
    @classmethod
    def _lengths_of_chains(cls, lengths):
        if lengths is None:
            return None
        return [_canonical(length) for length in _listed(lengths, "lengths", "residues, as in lengths=[60,80]")]

    @field_validator("fix", mode="before")
    @classmethod
    def _entries(cls, fix):
        if fix is None:
            return None
        entries = _listed(fix, "fix", "what stays, as in fix=[A10-35,B], or another task")
        for entry in entries:
            if isinstance(entry, float):  # of the command line, which has no way to tell 1E5 from it
                raise UserError(
                    f"fix: an entry was read as the number {entry}: part chain and residue by a colon, as in 1E:5"
                )
            if isinstance(entry, bool) or not isinstance(entry, str | int):
                raise UserError(f"fix: {entry} names no residues: give such as A10-35, A12, or B for a whole chain")
        return ["".join(part.split()) for entry in entries for part in str(entry).split(",")]

    @field_validator("formats", mode="before")
    @classmethod
    def _each_format_once(cls, formats):
        return list(dict.fromkeys(_listed(formats, "formats", "pdb, mmcif or both")))

    @model_validator(mode="after")
    def _keys_fit_the_task(self):
        own = _OF_A_TASK[self.task]
        for key in dict.fromkeys(key for keys in _OF_A_TASK.values() for key in keys if key not in own):
            if getattr(self, key) is not None:
                raise UserError(
                    f"{key} has no effect with task={self.task.value}, which reads {', '.join(own)}: leave it out"
                )
        for key in own:
            if key in _TO_BE_GIVEN and getattr(self, key) is None:
                raise UserError(f"{key} is missing: task={self.task.value} needs {key}=...")
        for length in self.lengths or []:
            if min(chain_lengths(length)) < 1 or sum(chain_lengths(length)) > MAX_RESIDUES:
                raise UserError(f"lengths: {length} is outside the model's limits: give lengths of 1 to {MAX_RESIDUES}")
            if len(chain_lengths(length)) > len(CHAIN_LETTERS):
                raise UserError(
                    f"lengths: {length}: more than the {len(CHAIN_LETTERS)} chains that a PDB file can name"
                )
        if self.temperature is not None and self.sampled.gives_tokens:
            raise UserError(f"temperature has no effect with {self.told}, where the sequence is given: leave it out")
        return self


def chain_lengths(length: int | str) -> tuple[int, ...]:
    """Residues of each chain of an entry of `lengths`: 80 has one chain, "60+40" two."""
    return tuple(int(part) for part in str(length).split("+"))


def _canonical(length):
    """80 for "80", "60+40" for " 60 + 40"."""
    if not isinstance(length, str | bool):
        return length
    if not _LENGTH.fullmatch(compact := "".join(str(length).split())):
        raise UserError(
            f"lengths: {length!r} is none: give residues, as in 60, or those of several chains, as in 60+40"
        )
    parts = chain_lengths(compact)
    return parts[0] if len(parts) == 1 else "+".join(map(str, parts))


def _listed(value, key: str, wanted: str) -> list:
    """Raises UserError for an empty list."""
    if value == []:
        raise UserError(f"{key}=[] is empty: give {wanted}")
    return value if isinstance(value, list) else [value]
