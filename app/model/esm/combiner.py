"""What the language model says, brought into the node and edge representations, and refined by a stack of blocks."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.blocks.base import Part
from app.devices import full_precision, under_autocast
from app.errors import UserError
from app.model.esm.language import LanguageModel, Representations
from app.model.esm.settings import WHERE, EsmSettings
from app.model.esm.tokens import TokenLayout
from app.model.stack import Plan, Sizes, Stack, plan_of_refinement
from app.types import NoisyBatch, TrunkState

REFINE = f"{WHERE}.refine"


class LayerMix(nn.Module):
    """A learned average of all layers, [L, B, N, D] -> [B, N, D]: softmax weights that start equal.

    Peters et al. 2018; so does ESMFold (Lin et al. 2023). float32 under any autocast.
    """

    def __init__(self, layers: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))

    def forward(self, hidden: Tensor) -> Tensor:
        with full_precision(hidden.device):
            return torch.einsum("l,lbnd->bnd", self.weights.float().softmax(0), hidden.float())


class Projected(nn.Module):
    """Features projected to a representation's width and normed; 0 at the start: the model begins as if without."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.linear = nn.Linear(c_in, c_out)
        self.norm = nn.LayerNorm(c_out)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features: Tensor) -> Tensor:
        if not under_autocast(features.device):  # which spares a copy of the maps
            features = features.to(self.linear.weight.dtype)
        return self.norm(self.linear(features))


class EsmCombiner(nn.Module):
    """Adds a frozen ESM-2's representations of the noisy tokens to the trunk's input.

    node [B, N, c_s]: + the mix of its layers. edge [B, N, N, c_z], in mode node_and_edge: + its attention maps, of all
    layers and heads. Then come the stages of `refine`. `needs`: parts of the state that matter before all this.
    """

    def __init__(self, settings: EsmSettings, sizes: Sizes, needed: Set[Part]):
        """needed: what the trunk reads. Loads no weights. Raises UserError where nothing reads what it would write."""
        super().__init__()
        if settings.with_maps and sizes["c_z"] is None:
            raise UserError(
                f"{WHERE}.mode={settings.mode} writes the edge representation, and model.c_z=null keeps none: set"
                f" {WHERE}.mode=node, or give model.c_z a width"
            )
        refine = _plan(settings, sizes, needed)
        self.needs = refine.needs if refine else frozenset(needed)
        for part in ("node", "edge") if settings.with_maps else ("node",):
            if part not in self.needs:
                raise UserError(
                    f"{WHERE}.mode={settings.mode}: nothing reads the {part} representation after it: choose another"
                    f" mode, or blocks in model.trunk.stages or {REFINE} that read it"
                )
        self.language = LanguageModel(settings)
        self.operations = ("esm_attention",) if settings.backend == "faplm" else ()  # transformers has its own
        layers, width, heads = self.language.size
        self.mix = LayerMix(layers + 1)
        self.to_node = Projected(width, sizes["c_s"])
        self.to_edge = Projected(layers * heads, sizes["c_z"]) if settings.with_maps else None
        self.refine = Stack(refine) if refine else None

    def forward(
        self, state: TrunkState, batch: NoisyBatch, fixed: TokenLayout | Representations | None = None
    ) -> TrunkState:
        """fixed: what `fixed` gave for a batch of the same residues, in sampling."""
        seen = fixed if isinstance(fixed, Representations) else self.language(batch, state.node.device, fixed)
        state = state.replace(node=state.node + self.to_node(self.mix(seen.hidden)) * state.node_mask[..., None])
        if self.to_edge is not None:
            state = state.replace(edge=state.edge + self.to_edge(seen.maps) * state.edge_mask[..., None])
        return state if self.refine is None else self.refine(state)

    def fixed(self, batch: NoisyBatch, sequence_given: bool = False) -> TokenLayout | Representations:
        """What stays as it is while designs are sampled: the places of the tokens; where the sequence is given, which
        no step changes, all that the language model says of it. Raises UserError as `check` does."""
        layout = self.language.lay_out(batch, batch.device)
        return self.language(batch, batch.device, layout) if sequence_given else layout

    def check(self, device: torch.device) -> None:
        """Find what is wrong with the language model before a run starts. Raises UserError: `LanguageModel.check`."""
        self.language.check(device)

    def identity(self) -> dict[str, str]:
        """For the checkpoint: name and sha256 of the language model."""
        return self.language.identity()

    def expect(self, identity: Any, checkpoint: Path | str) -> None:
        """Take no other language model than a checkpoint names. Raises UserError."""
        self.language.expect(identity, checkpoint)

    def _apply(self, fn, recurse: bool = True):
        self.language.release()  # the model moves, or changes its type
        return super()._apply(fn, recurse)


def _plan(settings: EsmSettings, sizes: Sizes, needed: Set[Part]) -> Plan | None:
    if not settings.refine:
        return None
    try:
        return plan_of_refinement(settings.refine, sizes, needed, REFINE)
    except UserError as error:
        if settings.with_maps and "edge" not in needed and sizes["c_z"] is not None:
            raise UserError(
                f"{WHERE}.mode={settings.mode}: the trunk reads no edges; choose model/esm=node, or blocks in"
                f" model.trunk.stages that read them ({error})"
            ) from None
        raise
