"""What a recipe says of the language model, and the sizes of the published ones (ESM-2, Lin et al. 2023)."""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.devices import Precision
from app.model.stack import Sizes, Stage, completed

WHERE = "model.esm"


class EsmSize(NamedTuple):
    """Dimensions of a language model."""

    layers: int
    width: int
    heads: int


PUBLISHED = {
    "esm2_8m": ("facebook/esm2_t6_8M_UR50D", EsmSize(6, 320, 20)),
    "esm2_35m": ("facebook/esm2_t12_35M_UR50D", EsmSize(12, 480, 20)),
    "esm2_150m": ("facebook/esm2_t30_150M_UR50D", EsmSize(30, 640, 20)),
    "esm2_650m": ("facebook/esm2_t33_650M_UR50D", EsmSize(33, 1280, 20)),
    "esm2_3b": ("facebook/esm2_t36_3B_UR50D", EsmSize(36, 2560, 40)),
    "esm2_15b": ("facebook/esm2_t48_15B_UR50D", EsmSize(48, 5120, 40)),
}
"""Short name -> (name on the Hugging Face hub, size)."""


Backend = Literal["faplm", "transformers"]


class LanguageHere(BaseModel):
    """Where the language model is and how it is run: whoever uses a checkpoint may say otherwise than it does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    backend: Backend | None = None
    precision: Precision | None = None


class NoEsm(BaseModel):
    """No language model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["none"] = "none"

    def completed(self, sizes: Sizes) -> "NoEsm":
        return self


class EsmSettings(BaseModel):
    """A frozen ESM-2 and how its representations are used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["esm2"] = "esm2"
    name: str = Field(description="esm2_8m to esm2_15b, the hub's name of one of these, or a folder")
    size: EsmSize | None = Field(None, description="layers, width, heads; read off the model that `name` names")
    mode: Literal["node", "node_and_edge"] = Field(
        "node", description="node_and_edge: the attention maps as well, into the edge representation"
    )
    backend: Backend = Field("faplm", description="transformers: slower, has attention maps")
    precision: Precision = Field("auto", description="of the language model alone; auto: bfloat16 on an NVIDIA GPU")
    linker: int = Field(25, gt=0, description="glycines between chains, and the most that stand for missing residues")
    refine: list[Stage] = Field([], description="blocks on node and edge between the language model and the trunk")

    @model_validator(mode="after")
    def _maps_are_to_be_had(self):
        if self.mode == "node_and_edge" and self.backend == "faplm":
            raise ValueError(
                "mode=node_and_edge reads attention maps, which backend=faplm does not give:"
                f" set {WHERE}.backend=transformers, or {WHERE}.mode=node"
            )
        return self

    @property
    def with_maps(self) -> bool:
        return self.mode == "node_and_edge"

    def completed(self, sizes: Sizes) -> "EsmSettings":
        return self.model_copy(update={"refine": completed(self.refine, sizes, f"{WHERE}.refine")})
