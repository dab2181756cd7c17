"""The same in kernels of our own (Triton) that read the edges once: what lies between is never written over pairs."""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from app.geometry import frames as frame
from app.ops.invariant_point_attention.fused_backward import by_keys, by_queries
from app.ops.invariant_point_attention.fused_forward import attend, join_parts
from app.ops.invariant_point_attention.reference import MASKED
from app.ops.invariant_point_attention.widened import narrow, widen
from app.types import Frames


@dataclass(frozen=True)
class Tiles:
    """How one kernel is cut: `queries` x `keys` pairs at a time, by `warps` warps, `stages` loads under way."""

    queries: int
    keys: int
    warps: int
    stages: int


ATTEND = {2: Tiles(8, 16, 8, 2), 4: Tiles(8, 16, 8, 2)}
BY_QUERIES = {2: Tiles(8, 16, 8, 1), 4: Tiles(8, 16, 8, 1)}
BY_KEYS = {2: Tiles(16, 16, 8, 1), 4: Tiles(16, 16, 8, 1)}


def invariant_point_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_points: Tensor,
    k_points: Tensor,
    v_points: Tensor,
    edge: Tensor,
    bias_weight: Tensor,
    bias_bias: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    point_weight: Tensor,
    frames: Frames,
    node_mask: Tensor,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and meaning as in `reference.py`; without dropout."""
    near = frame.centred(frames, node_mask)
    wide = widen(q, k, v, q_points, k_points, v_points, point_weight, near)
    key_bias = wide.key_bias + MASKED * (node_mask - 1)[:, None]
    weight = (3**-0.5 * bias_weight).to(edge.dtype)
    values, edges, _ = _forward(wide.queries, wide.keys, wide.values, key_bias, edge, weight)
    # Softmax cancels what is the same for all keys. The sum gives `bias_bias` its gradient, which is zero.
    values = values + 0.0 * bias_bias.sum()
    return narrow(values, edges, v.shape[-1], down_weight, down_bias, near, node_mask)


@torch.library.custom_op("trunkline::point_attention", mutates_args=())
def _forward(
    queries: Tensor, keys: Tensor, values: Tensor, key_bias: Tensor, edge: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """queries, keys: [B, H, N, W]; values: [B, H, N, V]; key_bias: [B, H, N]; edge: [B, N, N, c_z]; weight: [H, c_z].

    Returns means of the values [B, H, N, V] and of the edges [B, H, N, c_z], log-sum-exps [B, H, N], in float32.
    """
    queries, keys, values, key_bias, weight = (x.contiguous() for x in (queries, keys, values, key_bias, weight))
    edge = _rows_contiguous(edge)
    batch, heads, length, _ = queries.shape
    tiles = ATTEND[edge.element_size()]
    tiled = triton.cdiv(length, tiles.queries)
    per_split, splits = _split(length, tiles.keys, batch * tiled, edge.device)
    out = [queries.new_empty(splits, batch, heads, length, *width) for width in ((values.shape[-1],), edge.shape[-1:], ())]
    attend[(tiled, splits, batch)](
        queries, keys, values, key_bias, edge, weight, *out, length, batch, *edge.stride()[:3], per_split,
        **_constants(queries, values, edge, tiles),
    )  # fmt: skip
    if splits == 1:
        return tuple(part[0] for part in out)
    joined = [torch.empty_like(part[0]) for part in out]
    sizes = {name: _constants(queries, values, edge, tiles)[name] for name in ("VALUE", "V_PAD", "C_Z", "C_PAD")}
    rows = batch * heads * length
    join_parts[(triton.cdiv(rows, 8),)](*out, *joined, rows, **sizes, SPLITS=splits, ROWS=8, num_warps=4)
    return tuple(joined)


@_forward.register_fake
def _(queries, keys, values, key_bias, edge, weight):
    return (
        torch.empty_like(values, memory_format=torch.contiguous_format),
        values.new_empty(*values.shape[:3], edge.shape[-1]),
        torch.empty_like(key_bias, memory_format=torch.contiguous_format),
    )


@torch.library.custom_op("trunkline::point_attention_backward", mutates_args=())
def _backward(
    queries: Tensor, keys: Tensor, values: Tensor, key_bias: Tensor, edge: Tensor, weight: Tensor,
    logsumexp: Tensor, delta: Tensor, d_values: Tensor, d_edges: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of the six inputs. delta: [B, H, N], sum of each output times its gradient; d_edges: as `edge`."""
    queries, keys, values, key_bias, d_values = (x.contiguous() for x in (queries, keys, values, key_bias, d_values))
    edge = _rows_contiguous(edge)
    batch, heads, length, width = queries.shape
    c_z = edge.shape[-1]
    d_edges = d_edges.transpose(1, 2)  # [B, N, H, c_z]
    both = torch.stack([d_edges, weight.expand_as(d_edges)], dim=3)
    given = queries, keys, values, key_bias, edge, both, d_values, logsumexp, delta

    tiles = BY_QUERIES[edge.element_size()]
    tiled = triton.cdiv(length, tiles.queries)
    per_split, splits = _split(length, tiles.keys, batch * tiled, edge.device)
    d_queries = queries.new_empty(splits, *queries.shape)
    d_edge = torch.empty_like(edge, memory_format=torch.contiguous_format)
    d_weight = queries.new_empty(splits * batch * tiled, heads, c_z)
    by_queries[(tiled, splits, batch)](
        *given, d_queries, d_edge, d_weight, length, batch, *edge.stride()[:3], per_split,
        **_constants(queries, values, edge, tiles),
    )  # fmt: skip

    tiles = BY_KEYS[edge.element_size()]
    tiled = triton.cdiv(length, tiles.keys)
    per_split, splits = _split(length, tiles.queries, batch * tiled, edge.device)
    d_by_key = [queries.new_empty(splits, *x.shape) for x in (keys, values, key_bias)]
    by_keys[(tiled, splits, batch)](
        *given, *d_by_key, length, batch, *edge.stride()[:3], per_split,
        **_constants(queries, values, edge, tiles),
    )  # fmt: skip
    return d_queries.sum(0), *(x.sum(0) for x in d_by_key), d_edge, d_weight.sum(0).to(weight.dtype)


@_backward.register_fake
def _(queries, keys, values, key_bias, edge, weight, logsumexp, delta, d_values, d_edges):
    given = queries, keys, values, key_bias, edge, weight
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in given)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(True)


def _gradients(ctx, d_values, d_edges, _):
    *inputs, values, edges, logsumexp = ctx.saved_tensors
    d_edges = d_edges.to(inputs[4].dtype)  # rounded before delta is made of it: else gradients of a row sum to no zero
    delta = (d_values * values).sum(-1) + (d_edges * edges).sum(-1)
    return _backward(*inputs, logsumexp, delta, d_values, d_edges)


_forward.register_autograd(_gradients, setup_context=_keep)


def _rows_contiguous(edge: Tensor) -> Tensor:
    return edge if edge.stride(-1) == 1 else edge.contiguous()


def _split(length: int, step: int, programs: int, device: torch.device) -> tuple[int, int]:
    """Into how many parts to cut a loop over `length` so that all processors have work: (size of a part, parts)."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type != "cpu" else 4
    steps = triton.cdiv(length, step)
    splits = max(1, min(steps, processors // programs))
    per_split = triton.cdiv(steps, splits)
    return per_split * step, triton.cdiv(steps, per_split)


def _constants(queries: Tensor, values: Tensor, edge: Tensor, tiles: Tiles) -> dict:
    heads, width, value, c_z = queries.shape[1], queries.shape[3], values.shape[3], edge.shape[3]
    exact = torch.get_float32_matmul_precision() == "highest" and edge.element_size() == 4
    precision = "ieee" if exact else "tf32"
    return {
        **{"HEADS": heads, "H_PAD": max(8, triton.next_power_of_2(heads))},
        **{"WIDTH": width, "W_PAD": max(16, triton.next_power_of_2(width))},
        **{"VALUE": value, "V_PAD": max(16, triton.next_power_of_2(value))},
        **{"C_Z": c_z, "C_PAD": max(16, triton.next_power_of_2(c_z))},
        **{"QUERIES": tiles.queries, "KEYS": tiles.keys, "num_warps": tiles.warps, "num_stages": tiles.stages},
        **{"SCORE_PRECISION": precision, "EDGE_PRECISION": precision},
    }
