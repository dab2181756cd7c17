"""Settings of a folder of structure files as training data (recipes/data/structures.yaml)."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.data.likeness import Likeness
from app.data.split import ValidationSettings

MOST_WORKERS = 8


class StructuresSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path  # a folder, searched with its subfolders, or one file
    cache_dir: Path | None = None  # of the preprocessed form; null: the user's cache folder
    chains: Literal["separate", "together"] = "separate"  # every chain is an example, or every file is one
    min_length: int = Field(40, ge=1)  # residues of an example
    max_length: int | None = Field(512, ge=1)  # null: no limit
    max_unknown_fraction: float = Field(0.1, ge=0, le=1)  # share of residues of unknown type (X)
    sample_by: Literal["chain", "cluster"] = "chain"  # an epoch draws every example, or one of each cluster
    clusters: Path | None = None  # a cluster file in Multiflow's format; null: by the likeness of sequences
    likeness: Likeness = Likeness()
    validation: ValidationSettings = ValidationSettings()
    workers: int | None = Field(None, ge=1)  # processes that preprocess; null: as many as processors, at most 8

    @model_validator(mode="after")
    def _lengths_in_order(self):
        if self.max_length is not None and self.max_length < self.min_length:
            raise ValueError(f"max_length={self.max_length} is below min_length={self.min_length}")
        return self

    @property
    def processes(self) -> int:
        return self.workers or min(os.cpu_count() or 1, MOST_WORKERS)
