"""How designs are refolded: Multiflow's protocol (Campbell et al. 2024), unless told otherwise."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.evaluation.refold.registry import FOLDERS, INVERSE_FOLDERS, PLUGINS, option


class RefoldSettings(BaseModel):
    """What self-consistency is measured with. The registry's names are all that can be chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: dict[str, Path] = Field({}, description="by a plug-in's name where its weights are")
    sequences: int = Field(8, ge=1, le=1000, description="by inverse folding, for each design")
    temperature: float = Field(0.1, ge=0, le=10, description="of inverse folding; at 0 the likeliest residue each time")
    designable: float = Field(2.0, gt=0, allow_inf_nan=False, description="the largest backbone RMSD, angstrom")
    longest: int | None = Field(None, ge=1, description="residues; longer designs are not refolded")
    seed: int = Field(0, description="mixed with each design's id")
    device: str = "auto"
    cache: Path | None = Field(None, description="folder of results; by default in the user's cache")

    @field_validator("weights")
    @classmethod
    def _one_of_each_kind(cls, weights: dict[str, Path]) -> dict[str, Path]:
        for name in weights:
            if name not in PLUGINS:
                raise ValueError(f"{name!r} is no plug-in: known are {', '.join(PLUGINS)}")
        for kind in (INVERSE_FOLDERS, FOLDERS):
            if len(both := [option(name) for name in weights if name in kind]) > 1:
                raise ValueError(f"{' and '.join(both)} do the same: give one of them")
        return weights
