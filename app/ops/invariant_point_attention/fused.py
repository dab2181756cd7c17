"""The same in kernels of our own (Triton) that read the edges once: what lies between is never written over pairs."""

from typing import Literal

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from app.devices import current
from app.ops.invariant_point_attention import fused_backward, fused_forward, fused_means, fused_points
from app.ops.invariant_point_attention.tiles import BY_KEYS, BY_QUERIES, RESIDUES, Tiles, fitted, of_forward
from app.types import Frames

BIAS_SCALE = 3**-0.5


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
    """Shapes and meaning as in `reference.py`; without dropout.

    Products are taken in the edges' dtype and summed in float32. In half precision keys and queries stand where their
    rounded coordinates are, by a thousandth of their distance from the centre off, at most.
    """
    scalars, points, edges, *_ = _forward(
        *(q, k, v, q_points, k_points, v_points, edge, bias_weight, bias_bias, point_weight),
        *(frames.rotmats, frames.trans, node_mask),
    )
    # Narrowing the means is the same as narrowing before them, since weights sum to 1.
    pair_values = F.linear(edges, down_weight.float(), down_bias.float()) * node_mask[..., None, None]
    return scalars, points, pair_values


@torch.library.custom_op("trunkline::point_attention", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_points: Tensor,
    k_points: Tensor,
    v_points: Tensor,
    edge: Tensor,
    bias_weight: Tensor,
    bias_bias: Tensor,
    point_weight: Tensor,
    rotmats: Tensor,
    trans: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns scalars [B, N, H, C], points [B, N, H, Pv, 3] and means of the edges [B, N, H, c_z], in float32.

    And for the backward pass widened queries, keys and values [B, H, N, ...], the keys' bias and log-sum-exps
    [B, H, N], and the centre [B, 3].
    """
    if not edge.numel():
        return _outputs(
            q, k, v, q_points, k_points, v_points, edge, bias_weight, bias_bias, point_weight, rotmats, trans, mask
        )
    sizes = _Sizes(q, q_points, v_points, edge)
    batch, length, heads = sizes.batch, sizes.length, sizes.heads
    (q, k, v), points = (_rows(x, 1) for x in (q, k, v)), [_rows(x, 2) for x in (q_points, k_points, v_points)]
    edge, bias_weight, point_weight, rotmats, trans, mask = (
        _rows(edge, 1),
        *(x.contiguous() for x in (bias_weight, point_weight, rotmats, trans, mask)),
    )

    queries, keys = (edge.new_empty(batch, heads, length, sizes.width) for _ in range(2))
    values = edge.new_empty(batch, heads, length, sizes.value)
    key_bias, logsumexp = (trans.new_empty(batch, heads, length) for _ in range(2))
    centre = trans.new_empty(batch, 3)
    by_residue = (triton.cdiv(length, RESIDUES), batch)
    with current(edge.device):
        fused_points.widen[by_residue](
            *(q, k, v, *points, point_weight, rotmats, trans, mask),
            *(queries, keys, values, key_bias, centre, length),
            *(stride for x in (q, k, v, *points) for stride in x.stride()[:3]),
            *sizes.scales,
            **sizes.of("HEADS H_PAD C C_PAD P P_PAD PV PV_PAD WIDTH VALUE"),
            RESIDUES=RESIDUES,
        )

        tiles = sizes.tiles(of_forward(batch * length), edge, "queries")
        tiled = triton.cdiv(length, tiles.queries)
        per_split, splits = _split(length, tiles.keys, batch * tiled, tiles.at_once, edge.device)
        widths = (sizes.value,), (sizes.c_z,), ()
        parts = [trans.new_empty(splits, batch, heads, length, *width) for width in widths]
        fused_forward.attend[(tiled, splits, batch)](
            *(queries, keys, values, key_bias, edge, bias_weight, *parts),
            *(length, batch, *edge.stride()[:3], per_split, BIAS_SCALE),
            **sizes.of("HEADS H_PAD WIDTH W_PAD VALUE V_PAD C_Z Z_PAD"),
            **_cut(tiles, q, edge),
        )

        shapes = v.shape, (*v.shape[:3], sizes.v_points, 3), (*v.shape[:3], sizes.c_z)
        out = [trans.new_empty(shape) for shape in shapes]
        fused_means.narrow[by_residue](
            *(*parts, rotmats, trans, mask, centre, *out, logsumexp, length, batch, splits),
            **sizes.of("HEADS H_PAD C C_PAD PV PV_PAD VALUE C_Z Z_PAD"),
            RESIDUES=RESIDUES,
        )
    return *out, queries, keys, values, key_bias, logsumexp, centre


@_forward.register_fake
def _outputs(q, k, v, q_points, k_points, v_points, edge, bias_weight, bias_bias, point_weight, rotmats, trans, mask):
    sizes = _Sizes(q, q_points, v_points, edge)
    by_head = sizes.batch, sizes.heads, sizes.length
    return (
        trans.new_empty(v.shape),
        trans.new_empty(*v.shape[:3], sizes.v_points, 3),
        trans.new_empty(*v.shape[:3], sizes.c_z),
        *(edge.new_empty(*by_head, width) for width in (sizes.width, sizes.width, sizes.value)),
        *(trans.new_empty(by_head) for _ in range(2)),
        trans.new_empty(sizes.batch, 3),
    )


@torch.library.custom_op("trunkline::point_attention_backward", mutates_args=())
def _backward(given: list[Tensor], kept: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """Gradients of the first twelve arguments of `_forward`.

    given, kept: its arguments and results. gradients: of the first three results.
    """
    q, k, v, q_points, k_points, v_points, edge, bias_weight, bias_bias, point_weight, rotmats, trans, mask = given
    scalars, points, edges, queries, keys, values, key_bias, logsumexp, centre = kept
    if not edge.numel():
        return [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in given[:-1]]
    sizes = _Sizes(q, q_points, v_points, edge)
    batch, length, heads, c_z = sizes.batch, sizes.length, sizes.heads, sizes.c_z
    local = [_rows(x, 2) for x in (q_points, k_points, v_points)]
    edge, bias_weight, point_weight, rotmats, trans, mask = (
        _rows(edge, 1),
        *(x.contiguous() for x in (bias_weight, point_weight, rotmats, trans, mask)),
    )

    d_values, both = torch.empty_like(values), edge.new_empty(batch, length, 2 * heads, c_z)
    delta, d_rotmats, d_trans = torch.empty_like(logsumexp), torch.empty_like(rotmats), torch.empty_like(trans)
    by_residue = (triton.cdiv(length, RESIDUES), batch)
    with current(edge.device):
        fused_means.narrow_backward[by_residue](
            *(*(x.contiguous() for x in gradients), scalars, points, edges, rotmats, trans, mask, centre, bias_weight),
            *(d_values, both, delta, d_rotmats, d_trans, length, BIAS_SCALE),
            **sizes.of("HEADS H_PAD C C_PAD PV PV_PAD VALUE C_Z Z_PAD"),
            RESIDUES=RESIDUES,
        )

        common = queries, keys, values, key_bias, edge, both, d_values, logsumexp, delta
        widths = sizes.of("HEADS H_PAD WIDTH W_PAD VALUE V_PAD C_Z Z_PAD")
        tiles = sizes.tiles(BY_QUERIES, edge, "queries")
        tiled = triton.cdiv(length, tiles.queries)
        per_split, query_splits = _split(length, tiles.keys, batch * tiled, tiles.at_once, edge.device)
        d_queries = trans.new_empty(query_splits, *queries.shape)
        d_edge = torch.empty_like(edge, memory_format=torch.contiguous_format)
        d_bias_weight = trans.new_empty(query_splits * batch * tiled, heads, c_z)
        fused_backward.by_queries[(tiled, query_splits, batch)](
            *(*common, d_queries, d_edge, d_bias_weight, length, batch, *edge.stride()[:3], per_split),
            **widths,
            **_cut(tiles, q, edge),
        )

        tiles = sizes.tiles(BY_KEYS, edge, "keys")
        tiled = triton.cdiv(length, tiles.keys)
        per_split, key_splits = _split(length, tiles.queries, batch * tiled, tiles.at_once, edge.device)
        d_by_key = [trans.new_empty(key_splits, *x.shape) for x in (keys, values, key_bias)]
        fused_backward.by_keys[(tiled, key_splits, batch)](
            *(*common, *d_by_key, length, batch, *edge.stride()[:3], per_split),
            **widths,
            **_cut(tiles, q, edge),
        )

        d_scalars = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
        d_points = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in local]
        d_point_weight = trans.new_empty(by_residue[0] * batch, heads)
        fused_points.widen_backward[by_residue](
            *(d_queries, *d_by_key, *local, point_weight, rotmats, trans, centre),
            *(*d_scalars, *d_points, d_rotmats, d_trans, d_point_weight),
            *(length, batch, query_splits, key_splits),
            *(stride for x in local for stride in x.stride()[:3]),
            *sizes.scales,
            **sizes.of("HEADS H_PAD C C_PAD P P_PAD PV PV_PAD WIDTH VALUE"),
            RESIDUES=RESIDUES,
        )
    d_bias_weight = BIAS_SCALE * d_bias_weight.sum(0)
    d_layers = [d_bias_weight.to(bias_weight.dtype), torch.zeros_like(bias_bias)]  # softmax cancels the latter
    d_point_weight = d_point_weight.sum(0).to(point_weight.dtype)
    return [*d_scalars, *d_points, d_edge, *d_layers, d_point_weight, d_rotmats, d_trans]


@_backward.register_fake
def _(given, kept, gradients):
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in given[:-1]]


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _gradients(ctx, *gradients):
    saved = list(ctx.saved_tensors)  # which a checkpoint gives once
    given, kept = saved[:13], saved[13:]
    pairs = zip(gradients, kept[:3], strict=False)
    outputs = [torch.zeros_like(out) if gradient is None else gradient for gradient, out in pairs]
    return *_backward(given, kept, outputs), None


_forward.register_autograd(_gradients, setup_context=_keep)


class _Sizes:
    """Numbers that the kernels are compiled for, by the names they have there; `..._PAD` are powers of two."""

    def __init__(self, q: Tensor, q_points: Tensor, v_points: Tensor, edge: Tensor):
        self.batch, self.length, self.heads, channels = q.shape
        self.c_z, points, self.v_points = edge.shape[3], q_points.shape[3], v_points.shape[3]
        self.width, self.value = (_multiple_of_8(channels + 3 * count) for count in (points, self.v_points))
        # 9/2 is the variance of one squared point distance, 3 the number of terms in the sum (AlphaFold 2, supplement).
        self.scales = (3 * channels) ** -0.5, (3 * points * 4.5) ** -0.5
        self.constants = {
            "HEADS": self.heads, "H_PAD": max(8, triton.next_power_of_2(self.heads)),
            "C": channels, "C_PAD": triton.next_power_of_2(channels),
            "P": points, "P_PAD": triton.next_power_of_2(points),
            "PV": self.v_points, "PV_PAD": triton.next_power_of_2(self.v_points),
            "WIDTH": self.width, "W_PAD": max(16, triton.next_power_of_2(self.width)),
            "VALUE": self.value, "V_PAD": max(16, triton.next_power_of_2(self.value)),
            "C_Z": self.c_z, "Z_PAD": max(16, triton.next_power_of_2(self.c_z)),
        }  # fmt: skip

    def of(self, names: str) -> dict[str, int]:
        return {name: self.constants[name] for name in names.split()}

    def tiles(self, table: dict[int, Tiles], edge: Tensor, resident: Literal["queries", "keys"]) -> Tiles:
        return fitted(table[edge.element_size()], resident, self.constants["H_PAD"], self.constants["Z_PAD"])


def _multiple_of_8(width: int) -> int:
    return -(-width // 8) * 8


def _rows(x: Tensor, inner: int) -> Tensor:
    """x, or a copy of it, whose last `inner` dimensions lie together, and whose columns a kernel reaches in 32 bits."""
    near = x.dim() < 4 or x.shape[2] * x.stride(2) < 2**31
    return x if near and x[(0,) * (x.dim() - inner)].is_contiguous() else x.contiguous()


def _split(length: int, step: int, programs: int, at_once: int, device: torch.device) -> tuple[int, int]:
    """Into how many parts to cut a loop over `length` so that all processors have work: (size of a part, parts)."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type != "cpu" else 4
    steps = triton.cdiv(length, step)
    splits = max(1, min(steps, at_once * processors // programs))
    per_split = triton.cdiv(steps, splits)
    return per_split * step, triton.cdiv(steps, per_split)


def _cut(tiles: Tiles, *given: Tensor) -> dict:
    """How a kernel is compiled: where all is float32, with three products of TF32, which carry its digits."""
    exact = {x.dtype for x in given} == {torch.float32} and torch.get_float32_matmul_precision() == "highest"
    return {
        **{"QUERIES": tiles.queries, "KEYS": tiles.keys, "num_warps": tiles.warps, "num_stages": tiles.stages},
        "PRECISION": "tf32x3" if exact else "tf32",
    }
