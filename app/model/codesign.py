"""The whole model: a noisy protein in, an estimate of the clean one out (Multiflow, Campbell et al. 2024)."""

import dataclasses

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from torch import Tensor, nn

from app.blocks.parts.dropout import Dropout
from app.chem.residues import NUM_AATYPES
from app.geometry.units import to_angstrom, to_nanometre
from app.model.edge_embed import EdgeEmbed, EdgeEmbedSettings
from app.model.esm import build_esm, completed_esm
from app.model.fixed import Fixed
from app.model.heads import build_head, completed_head
from app.model.node_embed import NodeEmbed, NodeEmbedSettings
from app.model.stack import Sizes
from app.model.trunk import Trunk, TrunkSettings
from app.types import Frames, NoisyBatch, Prediction, TrunkState


class ModelSettings(BaseModel):
    """A model as a recipe describes it. Stages are completed with the defaults of their block types."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    c_s: int = Field(256, gt=0, description="width of the node representation")
    c_z: int | None = Field(128, gt=0, description="width of the edge representation; null: none is kept")
    num_tokens: int = Field(21, ge=20, le=21, description="columns of the logits; 20 where the flow has no mask token")
    node_embed: NodeEmbedSettings = NodeEmbedSettings()
    edge_embed: EdgeEmbedSettings = EdgeEmbedSettings()
    trunk: TrunkSettings
    esm: dict = Field({"kind": "none"}, validate_default=True)
    head: dict = Field({"kind": "mlp"}, validate_default=True)

    @property
    def sizes(self) -> Sizes:
        return {"c_s": self.c_s, "c_z": self.c_z}

    @field_validator("trunk")
    @classmethod
    def _complete_trunk(cls, trunk: TrunkSettings, info: ValidationInfo) -> TrunkSettings:
        return trunk.completed(_sizes(info))

    @field_validator("esm")
    @classmethod
    def _complete_esm(cls, esm: dict, info: ValidationInfo) -> dict:
        return completed_esm(esm, _sizes(info))

    @field_validator("head")
    @classmethod
    def _complete_head(cls, head: dict, info: ValidationInfo) -> dict:
        return completed_head(head, _sizes(info))


def _sizes(info: ValidationInfo) -> Sizes:
    """The widths, where they are themselves valid."""
    return {name: info.data[name] for name in ("c_s", "c_z") if name in info.data}


class CodesignModel(nn.Module):
    """`NoisyBatch -> Prediction`. SE(3)-equivariant: predicted frames move with the noisy ones, logits do not.

    No part is made that could not affect the prediction. In particular there are edges only where something reads them;
    without, no N x N tensor is made at all.
    """

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.settings = settings
        sizes = settings.sizes
        head = build_head(settings.head, sizes, settings.num_tokens)
        trunk = Trunk(settings.trunk, sizes, head.needs)
        esm = build_esm(settings.esm, sizes, trunk.needs)
        needs = trunk.needs if esm is None else esm.needs
        # In the order that optimizer states in checkpoints have.
        self.node_embed = NodeEmbed(settings.node_embed, settings.c_s, settings.num_tokens)
        self.edge_embed = EdgeEmbed(settings.edge_embed, settings.c_s, settings.c_z) if "edge" in needs else None
        self.head = head
        self.trunk = trunk
        self.esm = esm

    @property
    def has_sequence_head(self) -> bool:
        return "node" in self.head.needs

    @property
    def draws_in_inference(self) -> bool:
        """Whether a dropout stays on in inference."""
        return any(isinstance(part, Dropout) and part.p_infer > 0 for part in self.modules())

    def fixed(self, batch: NoisyBatch, sequence_given: bool = False) -> Fixed:
        """What `forward` makes of the batch's masks and indices, to be given to it in every step of a sampling run.

        sequence_given: the tokens stay as well.
        """
        language = None if self.esm is None else self.esm.fixed(batch, sequence_given)
        return dataclasses.replace(self._placed(batch), language=language)

    def _placed(self, batch: NoisyBatch) -> Fixed:
        """The same but for what the language model keeps."""
        mask = batch.res_mask
        position, chain = self.node_embed.places(batch)
        relative = edge_mask = None
        if self.edge_embed is not None:
            relative = self.edge_embed.relative_positions(mask.shape[1], mask.device)
            edge_mask = mask[:, :, None] * mask[:, None]
        return Fixed(position, chain, relative, edge_mask, frame_mask=mask * batch.diffuse_mask)

    def embed(self, batch: NoisyBatch, fixed: Fixed | None = None) -> TrunkState:
        """The trunk's input: masked representations, frames in nanometre."""
        fixed = self._placed(batch) if fixed is None else fixed
        node, edge = self.node_embed(batch, fixed.position, fixed.chain), None
        if self.edge_embed is not None:
            edge = self.edge_embed(node, batch, fixed.relative, fixed.edge_mask)
        state = TrunkState(
            node=node * batch.res_mask[..., None],
            edge=edge,
            frames=to_nanometre(Frames(batch.rotmats_t.float(), batch.trans_t.float())),
            node_mask=batch.res_mask,
            edge_mask=fixed.edge_mask,
            t=torch.cat([batch.so3_t, batch.r3_t, batch.cat_t], dim=-1),
            frame_mask=fixed.frame_mask,
        )
        return state if self.esm is None else self.esm(state, batch, fixed.language)

    def forward(self, batch: NoisyBatch, fixed: Fixed | None = None) -> Prediction:
        """fixed: that of a batch with the same masks and indices, to spare its making; the result is the same."""
        state = self.trunk(self.embed(batch, fixed))
        frames = to_angstrom(state.frames)
        logits = self.head(state)
        if logits is None:
            return Prediction(frames.trans, frames.rotmats, None, batch.aatypes_t.long())
        logits = logits.float()
        return Prediction(frames.trans, frames.rotmats, logits, most_likely(logits))


def most_likely(logits: Tensor) -> Tensor:
    """Most likely residue type, the mask token excluded: [B, N, 20 or 21] -> [B, N] int64."""
    return logits[..., :NUM_AATYPES].argmax(-1)
