"""Settings of clustering by sequence (key `data.likeness`)."""

from pydantic import BaseModel, ConfigDict, Field


class Likeness(BaseModel):
    """When two chains belong to one cluster (key `data.likeness`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_identity: float = Field(0.3, ge=0.2, le=1)  # identical residues, of those aligned
    min_coverage: float = Field(0.8, ge=0.1, le=1)  # aligned residues, of the shorter chain's
