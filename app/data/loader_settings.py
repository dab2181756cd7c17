"""Settings of batching and loading, the same for every kind of data (key `data.loader`)."""

from pydantic import BaseModel, ConfigDict, Field


class LoaderSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    num_workers: int = Field(0, ge=0)  # processes that read ahead; 0 reads in the training process
    max_batch_size: int = Field(64, ge=1)  # examples a batch
    max_residues_squared: int = Field(400_000, ge=1)  # B * N^2 of a batch; one example is always let through
    bucket: int = Field(1, ge=1)  # lengths a batch may mix: 1 is equal lengths only, 16 is 1-16, 17-32, ...
    seed: int = Field(0, ge=0)  # of the draw of examples and the order of batches
