"""Which backend computes each operation: the `kernels` section of recipes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class KernelSettings(BaseModel):
    """A backend for each operation; `auto` takes the best that can serve a call. Never part of what a model is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    invariant_point_attention: Literal["auto", "reference", "torch", "triton"] = "auto"
    edge_transition: Literal["auto", "reference", "torch", "triton"] = "auto"
    edge_embedding: Literal["auto", "reference", "torch", "triton"] = "auto"
    triangle_attention: Literal["auto", "reference", "torch", "trifast", "cuequivariance"] = "auto"
    triangle_multiplication: Literal["auto", "reference", "torch", "cuequivariance"] = "auto"
    pair_bias_attention: Literal["auto", "reference", "torch", "cuequivariance"] = "auto"
    self_attention: Literal["auto", "reference", "torch", "triton"] = Field(
        "auto", description="the transformer in IPA blocks"
    )
    factorised_attention: Literal["auto", "reference", "torch", "flash_attn"] = Field("auto", description="flash_ipa")
    esm_attention: Literal["auto", "reference", "torch", "flash_attn"] = "auto"


OPERATIONS = tuple(KernelSettings.model_fields)
