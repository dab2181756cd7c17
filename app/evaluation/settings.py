"""What an evaluation is asked for."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class EvaluationSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: Path | None = Field(None, description="folder of structures that designs are matched with by name")
    novelty: Path | None = Field(None, description="folder of structures that designs are compared with")
    seed: int = Field(0, ge=0, description="of bootstrap intervals, and of the choice of what is compared")
    resamples: int = Field(1000, ge=100, le=100_000, description="of the bootstrap")
    compare: float = Field(
        50.0, ge=0, allow_inf_nan=False, description="million pairs of residues that are superposed; 0: none"
    )
    workers: int | None = Field(None, ge=1, description="processes; None: a core each")
    foldseek: bool = Field(True, description="where it is installed")
