"""What flows through the house: the shape, dtype, unit and meaning of every field that crosses a module boundary.

B examples, N residues (padded), 21 tokens. Masks are float32, 1 = present. Lengths are in angstrom unless a name says
otherwise; the trunk's frames are in nanometre.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from app.chem.residues import NUM_TOKENS


@dataclass
class Frames:
    """Rigid frames, one a residue: x_global = rotmats @ x_local + trans. float32 always.

    rotmats: [..., 3, 3] proper rotations. trans: [..., 3]; the owner's docstring gives the unit.
    """

    rotmats: Tensor
    trans: Tensor


@dataclass
class Protein:
    """One protein as read from a file: numpy arrays, nothing derived. N residues, all with N, CA and C present."""

    name: str
    atom37: np.ndarray  # [N, 37, 3] float32, angstrom, 0 where the atom is absent
    atom_mask: np.ndarray  # [N, 37] bool
    aatype: np.ndarray  # [N] int64, 0..20
    res_idx: np.ndarray  # [N] int64, the file's numbering, made to strictly increase within a chain; gaps kept
    chain_idx: np.ndarray  # [N] int64, 1, 2, ... in order of appearance
    chain_ids: tuple[str, ...]  # chain_ids[k - 1] is the file's name of chain k
    b_factors: np.ndarray  # [N] float32, that of CA
    residue_ids: np.ndarray | None = None  # [N] str, the file's number and insertion code ("52", "52A"); None: res_idx

    def __len__(self) -> int:
        return len(self.aatype)


class _Batch:
    """Shared by the batch types: moving all tensors at once. Lightning calls `to` when it transfers a batch."""

    def to(self, *args, **kwargs):
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def map(self, function):
        """A copy with `function` applied to every tensor field."""
        changes = {
            f.name: function(value)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return dataclasses.replace(self, **changes)

    def examples(self, first: int, last: int):
        """A copy that has only the examples from `first` up to `last`, which is not among them."""
        return dataclasses.replace(self.map(lambda tensor: tensor[first:last]), names=self.names[first:last])

    @property
    def device(self) -> torch.device:
        return self.res_mask.device


@dataclass(frozen=True)
class Share:
    """A batch's part in its optimizer step.

    weight: what its mean loss is multiplied by, so that the gradient that all ranks average and all batches of the step
    add up to is that of the mean over the step's examples: as of one large batch. ends: the step is made after it.
    """

    weight: float = 1.0
    ends: bool = True


@dataclass
class ProteinBatch(_Batch):
    """Clean training examples, padded to one length: what the data loader gives and the flow corrupts."""

    res_mask: Tensor  # [B, N] float, 0 on padding and unresolved residues
    diffuse_mask: Tensor  # [B, N] float, 1 where the flow acts, 0 where the residue is given and stays
    plddt_mask: Tensor  # [B, N] float, 1 where the residue counts in the losses
    chain_idx: Tensor  # [B, N] int64, 1, 2, ...
    res_idx: Tensor  # [B, N] int64, starts at 1 in every chain, gaps kept
    trans_1: Tensor  # [B, N, 3] float, CA, angstrom, centred on the mean over present residues
    rotmats_1: Tensor  # [B, N, 3, 3] float, identity on padding
    aatypes_1: Tensor  # [B, N] int64, 0..20
    names: list[str] = field(default_factory=list)
    share: Share = Share()


@dataclass
class NoisyBatch(_Batch):
    """A model input: noisy frames and tokens at their times; for the losses, the clean ones too.

    Tensors may come as float where integers are meant (Multiflow passes floats); `codesign` casts them.
    """

    res_mask: Tensor  # [B, N] float
    diffuse_mask: Tensor  # [B, N] float
    chain_idx: Tensor  # [B, N]
    res_idx: Tensor  # [B, N]
    so3_t: Tensor  # [B, 1] float in [0, 1]; 0 is noise, 1 is data
    r3_t: Tensor  # [B, 1] float
    cat_t: Tensor  # [B, 1] float
    trans_t: Tensor  # [B, N, 3] float, angstrom
    rotmats_t: Tensor  # [B, N, 3, 3] float
    aatypes_t: Tensor  # [B, N], 0..20, 20 = mask token
    trans_sc: Tensor  # [B, N, 3] float, angstrom: the model's previous estimate, 0 where there is none
    aatypes_sc: Tensor  # [B, N, 21] float: the model's previous logits, 0 where there are none
    trans_1: Tensor | None = None  # [B, N, 3] float, angstrom
    rotmats_1: Tensor | None = None  # [B, N, 3, 3] float
    aatypes_1: Tensor | None = None  # [B, N] int64
    plddt_mask: Tensor | None = None  # [B, N] float
    names: list[str] = field(default_factory=list)


@dataclass
class TrunkState:
    """What every block takes and returns; a block passes through what it does not touch.

    Rows of `node` and `edge` that are absent (padding) are zero before and after every block.
    """

    node: Tensor  # [B, N, c_s]
    edge: Tensor | None  # [B, N, N, c_z], or None in a model that keeps no pair tensor
    frames: Frames  # rotmats [B, N, 3, 3], trans [B, N, 3] in nanometre
    node_mask: Tensor  # [B, N] float
    edge_mask: Tensor | None  # [B, N, N] float, the outer product of node_mask; None where edge is None
    t: Tensor  # [B, 3] float: so3_t, r3_t, cat_t
    frame_mask: Tensor | None = None  # [B, N] float, 1 where frames may move (present and diffused); None: node_mask

    @property
    def moves(self) -> Tensor:
        """[B, N] float, 1 where frames may move."""
        return self.node_mask if self.frame_mask is None else self.frame_mask

    def replace(self, **changes) -> TrunkState:
        return dataclasses.replace(self, **changes)


@dataclass
class Prediction:
    """The model's estimate of the clean protein."""

    pred_trans: Tensor  # [B, N, 3] float32, angstrom
    pred_rotmats: Tensor  # [B, N, 3, 3] float32
    pred_logits: Tensor | None  # [B, N, 21] float32, or None from a model without a sequence head
    pred_aatypes: Tensor  # [B, N] int64, argmax with the mask token excluded; without logits the noisy tokens

    def logits_to_see(self) -> Tensor:
        """[B, N, 21]: the logits as the model sees them in its next call; 0 for a token without a column, and for all
        of them where there is no sequence head."""
        if self.pred_logits is None:
            return self.pred_trans.new_zeros(*self.pred_aatypes.shape, NUM_TOKENS)
        return F.pad(self.pred_logits, (0, NUM_TOKENS - self.pred_logits.shape[-1]))
