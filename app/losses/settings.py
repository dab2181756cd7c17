"""Weights and scales of the losses."""

from pydantic import BaseModel, ConfigDict, Field


class LossSettings(BaseModel):
    """Multiflow's losses; all lengths are scaled before squaring, all times clipped so that 1 - t stays away from 0."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    translation_weight: float = Field(2.0, ge=0)
    translation_scale: float = Field(0.1, gt=0, description="angstrom -> loss units")
    translation_clamp: float = Field(5.0, gt=0, description="largest translation loss of an example")
    rotation_weight: float = Field(1.0, ge=0)
    token_weight: float = Field(1.0, ge=0)
    token_label_smoothing: float = Field(0.0, ge=0, lt=1)
    token_likelihood_weighting: bool = Field(False, description="divide the cross-entropy by 1 - t as well")
    token_sum: bool = Field(False, description="sum over residues instead of their mean")
    auxiliary_weight: float = Field(0.0, ge=0, description="of the backbone-atom and pair-distance terms")
    auxiliary_atoms: bool = Field(True, description="positions of N, CA, C")
    auxiliary_distances: bool = Field(True, description="distances between all N, CA, C")
    auxiliary_scale: float = Field(0.1, gt=0, description="angstrom -> loss units")
    auxiliary_min_t: float = Field(0.5, ge=0, le=1, description="only examples with structure times above this")
    auxiliary_clamp: float = Field(5.0, gt=0)
    max_t: float = Field(0.9, gt=0, lt=1, description="times are clipped to this where 1 - t divides")
    use_plddt_mask: bool = Field(True, description="leave residues out that plddt_mask leaves out")
