"""What is looked at in validation (key `validation`); when, says `trainer.validate_every`."""

from pydantic import BaseModel, ConfigDict, Field, field_validator


class ValidationSettings(BaseModel):
    """Losses of what is held out, and a short sampling run: designs from noise, held-out chains folded from their
    sequences and given new ones. What is 0 or empty is left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    times: tuple[float, ...] = Field((0.1, 0.3, 0.5, 0.7, 0.9), description="at which losses are taken")
    examples: int | None = Field(500, gt=0, description="held-out examples they are taken of, at most; null: all")
    lengths: tuple[int, ...] = Field((60, 100), description="residues of designs from noise")
    designs: int = Field(4, ge=0, description="from noise, of each length")
    folds: int = Field(8, ge=0, description="held-out chains folded from their sequences, and given new sequences")
    steps: int = Field(25, ge=2, description="model calls from noise to design")

    @field_validator("times")
    @classmethod
    def _apart(cls, times: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= time <= 1 for time in times):
            raise ValueError("times are numbers from 0 (noise) to 1 (data)")
        if len({f"{time:.2f}" for time in times}) < len(times):
            raise ValueError("times are to differ in two digits")
        return times

    @field_validator("lengths")
    @classmethod
    def _some(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if any(length < 1 for length in lengths):
            raise ValueError("a design has at least one residue")
        return lengths

    @property
    def samples(self) -> bool:
        """Whether there is a sampling run, held-out chains or not."""
        return self.folds > 0 or self.designs * len(self.lengths) > 0
