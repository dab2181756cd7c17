"""The widened attention by the package flash-attn."""

import torch.nn.functional as F
from flash_attn import flash_attn_func
from torch import Tensor

from app.ops.factorised_attention.widened import widened, width_of
from app.types import Frames


def factorised_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_points: Tensor,
    k_points: Tensor,
    v_points: Tensor,
    bias_left: Tensor,
    bias_right: Tensor,
    value_left: Tensor,
    value_right: Tensor,
    point_weight: Tensor,
    frames: Frames,
    node_mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and meaning as in `reference.py`. The key mask is a column of the widened keys."""
    everything = q, k, v, q_points, k_points, v_points, bias_left, bias_right, value_left, value_right, point_weight
    return widened(_attention, *everything, frames, node_mask)


def _attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    width = width_of(max(queries.shape[-1], values.shape[-1]))
    padded = (F.pad(x, (0, width - x.shape[-1])) for x in (queries, keys, values))
    return flash_attn_func(*padded, softmax_scale=1.0)[..., : values.shape[-1]]
