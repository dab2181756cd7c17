"""What a model makes of the parts of a batch that stay as they are from one sampling step to the next."""

from dataclasses import dataclass

from torch import Tensor

from app.model.esm.language import Representations
from app.model.esm.tokens import TokenLayout


@dataclass(frozen=True)
class Fixed:
    """Depends on the weights, and of the batch on its masks and indices, and its tokens where the sequence is given.

    Made by `CodesignModel.fixed`.
    """

    position: Tensor  # [B, N, c_position], the embedded residue index
    chain: Tensor | None  # [B, N, c_position], the embedded chain index; None where it is not seen
    relative: Tensor | None  # [2 N - 1, feature_width], the projected relative positions; None without edges
    edge_mask: Tensor | None  # [B, N, N]; None without edges
    frame_mask: Tensor  # [B, N], 1 where frames may move
    language: TokenLayout | Representations | None = None  # where the tokens stand, or all that is said of them
