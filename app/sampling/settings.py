"""Settings of the sampler. `SAMPLERS` are the two that ship; recipes/sampler/ mirrors them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SamplerSettings(BaseModel):
    """Euler steps from noise to data. The defaults are the mended sampler; Multiflow's quirks are switches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "euler"
    min_t: float = Field(0.01, gt=0, lt=1, description="time of the first model call")
    translation_noise: float = Field(10.0, gt=0, description="standard deviation of the starting CA, angstrom")
    rotation_schedule: Literal["linear", "exponential"] = Field(
        "linear", description="'linear' as trained; quirk 'exponential': constant speed, not what training used"
    )
    rotation_rate: float = Field(10.0, gt=0, description="speed of the exponential schedule")
    half_turn: Literal["exact", "positive"] = Field("exact", description="quirk 'positive': see geometry.rotations.log")
    tokens: Literal["masking", "uniform"] = Field("masking", description="token noise the model was trained with")
    token_step: Literal["purity", "plain"] = "purity"
    token_temperature: float = Field(0.1, gt=0)
    token_noise: float = Field(20.0, ge=0, description="rate at which tokens are masked again on the way")
    resample_unmasked: bool = Field(False, description="quirk of the plain step: tokens already drawn are drawn again")
    first_residue: int = Field(1, ge=0, description="first residue index; 1 in training, quirk 0")
    fixed_t: float = Field(1.0, gt=0, le=1, description="time of a given modality; 1 in training, quirk 0.99")
    given_tokens_as_one_hot: bool = Field(
        False, description="quirk: with the sequence given, self-condition on it and not on the model's logits"
    )
    stale_final_call: bool = Field(False, description="quirk: the last model call sees the tokens and times before it")
    sequence: Literal["sampled", "argmax"] = Field(
        "sampled", description="sequence returned: the tokens sampled on the way; quirk 'argmax' of the last call"
    )

    @model_validator(mode="after")
    def _step_fits_tokens(self):
        if self.tokens == "uniform" and self.token_step == "purity":
            raise ValueError("token_step=purity needs tokens=masking; use token_step=plain")
        return self


SAMPLERS = {
    "euler": SamplerSettings(),
    "multiflow_legacy": SamplerSettings(
        name="multiflow_legacy",
        rotation_schedule="exponential",
        half_turn="positive",
        resample_unmasked=True,
        first_residue=0,
        fixed_t=0.99,
        given_tokens_as_one_hot=True,
        stale_final_call=True,
        sequence="argmax",
    ),
}
