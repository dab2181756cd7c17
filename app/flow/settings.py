"""Settings of the flow: how clean proteins are noised in training."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PartialSettings(BaseModel):
    """Training for partial design: examples of which some residues are given, and only the others are noised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    probability: float = Field(0.0, ge=0, le=1, description="share of the examples; 0: none")
    scattered: float = Field(0.25, ge=0, le=1, description="of these, the share with single residues given at random")
    segments: int = Field(3, ge=1, description="in the others, at most so many stretches of residues are given")
    least: float = Field(0.1, ge=0, le=1, description="smallest share of an example's residues that is given")
    most: float = Field(0.9, ge=0, le=1, description="largest share")

    @model_validator(mode="after")
    def _shares_in_order(self):
        if self.most < self.least:
            raise ValueError(f"most={self.most} is below least={self.least}")
        return self


class FlowSettings(BaseModel):
    """Multiflow's flow (Campbell et al. 2024, appendix); the quirks of the original are switches, off by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_t: float = Field(0.01, gt=0, lt=0.5, description="times are drawn from [min_t, 1 - min_t]")
    separate_times: bool = Field(True, description="structure and tokens each have a time of their own")
    forward_folding_share: float = Field(0.1, ge=0, le=1, description="examples with the tokens given (token time 1)")
    inverse_folding_share: float = Field(0.1, ge=0, le=1, description="examples with the frames given (frame time 1)")
    corrupt_translations: bool = True
    corrupt_rotations: bool = True
    corrupt_tokens: bool = True
    translation_noise: float = Field(10.0, gt=0, description="standard deviation of the noise on CA, angstrom")
    batch_transport: bool = Field(True, description="pair noise with examples by optimal transport within the batch")
    invert_transport: bool = Field(False, description="quirk: apply the inverse of the optimal permutation")
    igso3_sigma: float = Field(1.5, ge=0.01, description="width of the noise around the true rotation, radians")
    half_turn: Literal["exact", "positive"] = Field("exact", description="quirk 'positive': see geometry.rotations.log")
    tokens: Literal["masking", "uniform"] = Field("masking", description="what noise does to tokens")
    extra_mask_share: float = Field(0.0, ge=0, le=1, description="tokens masked besides, whatever their time")
    self_condition_share: float = Field(0.5, ge=0, le=1, description="training steps with self-conditioning")
    partial: PartialSettings = PartialSettings()

    @model_validator(mode="after")
    def _shares_fit(self):
        if self.forward_folding_share + self.inverse_folding_share > 1:
            raise ValueError("forward_folding_share and inverse_folding_share add up to more than 1; lower one of them")
        return self
