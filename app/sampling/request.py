"""What an inference run is asked for: the keys of recipes/infer.yaml less the sampler, checked."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from app.devices import DeviceName, Precision
from app.errors import UserError
from app.sampling.inputs import Task

MAX_RESIDUES = 2056
"""Longest design. The position embeddings have this as their longest period (app.model.node_embed): beyond it residues
far apart look alike, and no model was trained there.
"""

_LENGTHS = ("lengths", "samples_per_length")
_INPUT = ("input", "samples", "chains")


class Request(BaseModel):
    """Raises UserError for a key that the task needs and lacks, and for one that it has no use for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task
    out: Path
    ckpt: Path | None = Field(None, description="the checkpoint, for the manifest; None: the model was never in a file")
    lengths: list[int] | None = Field(None, min_length=1)
    samples_per_length: int | None = Field(None, gt=0, description="None: 1")
    input: Path | None = None
    samples: int | None = Field(None, gt=0, description="designs of each chain or sequence; None: 1")
    chains: Literal["separate", "together"] | None = Field(None, description="None: separate")
    use_ema: bool | Literal["auto"] = Field("auto", description="auto: where the checkpoint has an average")
    steps: int = Field(100, ge=2, description="model calls")
    seed: int = Field(0, ge=0)
    device: DeviceName | Literal["gpu"] = "auto"
    devices: PositiveInt | Literal["auto", -1] = Field(1, description="of this machine, a process each; auto, -1: all")
    num_nodes: int = Field(1, gt=0, description="machines, by torchrun or SLURM")
    trajectories: bool = False
    max_batch_size: int = Field(64, gt=0, description="designs")
    max_residues_squared: PositiveInt | Literal["auto"] = Field(
        "auto", description="B * N^2 of a batch; auto: what fits into the device's memory"
    )
    precision: Precision = Field("float32", description="of the network; frames and coordinates are float32 always")
    compile: bool = False
    cuda_graph: bool | Literal["auto"] = Field("auto", description="auto: on an NVIDIA GPU")
    progress_bar: bool = True
    report: bool = Field(True, description="write report.html at the end")

    @field_validator("lengths", mode="before")
    @classmethod
    def _one_is_a_list(cls, lengths):
        return [lengths] if isinstance(lengths, int) else lengths

    @model_validator(mode="after")
    def _keys_fit_the_task(self):
        own, others = (_LENGTHS, _INPUT) if self.task is Task.UNCONDITIONAL else (_INPUT, _LENGTHS)
        for key in others:
            if getattr(self, key) is not None:
                raise UserError(
                    f"{key} has no effect with task={self.task.value}, which reads {', '.join(own)}: leave it out"
                )
        if getattr(self, own[0]) is None:
            raise UserError(f"{own[0]} is missing: task={self.task.value} needs {own[0]}=...")
        for length in self.lengths or []:
            if not 1 <= length <= MAX_RESIDUES:
                raise UserError(f"lengths: {length} is outside the model's limits: give lengths of 1 to {MAX_RESIDUES}")
        return self
