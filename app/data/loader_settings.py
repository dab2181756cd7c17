"""Settings of batching and loading, the same for every kind of data (key `data.loader`)."""

from pydantic import BaseModel, ConfigDict, Field

ENOUGH_WORKERS = 2
WORTH_WORKERS = 1000
"""`num_workers: null` are so many processes, from so many examples on."""


class LoaderSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    num_workers: int | None = Field(0, ge=0)  # processes that read ahead; 0: none; null: as many as the data are worth
    max_batch_size: int = Field(64, ge=1)  # examples a batch
    max_residues_squared: int = Field(400_000, ge=1)  # B * N^2 of a batch; one example is always let through
    bucket: int = Field(1, ge=1)  # lengths a batch may mix: 1 is equal lengths only, 16 is 1-16, 17-32, ...
    seed: int = Field(0, ge=0)  # of the draw of examples and the order of batches

    def workers(self, examples: int) -> int:
        """How many processes read ahead; a small set is read sooner than they would start."""
        if self.num_workers is not None:
            return self.num_workers
        return ENOUGH_WORKERS if examples >= WORTH_WORKERS else 0
