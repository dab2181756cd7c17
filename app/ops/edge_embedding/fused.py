"""Edge embedding in Triton: nothing of a pair is written but its edge. `gathered` has the backward pass."""

import torch
import triton
from torch import Tensor

from app.devices import compute_dtype, current, full_precision
from app.ops.edge_embedding import gathered, kernels
from app.ops.edge_embedding.distogram import lower_edges
from app.ops.edge_embedding.gathered import LARGEST_ON_GPU, shares
from app.ops.edge_embedding.reference import EPSILON
from app.ops.recompute import rows_within

PAIRS = {2: 128, 4: 32}
"""Of a tile, by bytes of a number; one that fits, no others were tried."""

WARPS = 8


def edge_embedding(
    node: Tensor,
    relative: Tensor,
    trans: tuple[Tensor, ...],
    num_bins: int,
    chain_idx: Tensor | None,
    diffuse_mask: Tensor | None,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    mask: Tensor,
) -> Tensor:
    """As the reference. The first layer and the LayerNorm are float32 under any autocast."""
    parts = shares(node, relative, trans, num_bins, chain_idx, diffuse_mask, first)
    mask = mask.to(compute_dtype(node))
    with full_precision(node.device):
        return embed_pairs(*parts.arguments(mask, second, last, norm))


@torch.library.custom_op("trunkline::embed_pairs", mutates_args=())
def embed_pairs(mine: list[Tensor], shared: list[Tensor]) -> Tensor:
    """Arguments as of `gathered.edges`, whose rows are all of them. Returns [B, N, N, out] in the mask's dtype."""
    of_i, mask, place, positions = (x.contiguous() for x in mine)
    of_j, by_offset, by_bin, *_ = (x.contiguous() for x in shared[:3])
    w2, b2, w3, b3 = (x.to(mask.dtype).contiguous() for x in shared[5:9])
    norm_weight, norm_bias, *same_chain = (x.contiguous() for x in shared[9:])
    (size, length, hidden), out = of_i.shape, len(w3)
    result = mask.new_empty(size, length, length, out)
    num_pairs, pairs = size * length**2, PAIRS[mask.element_size()]
    exact = torch.get_float32_matmul_precision() == "highest"
    with current(mask.device):
        kernels.forward_kernel[(triton.cdiv(num_pairs, pairs),)](
            *(of_i, of_j, by_offset, by_bin, positions, lower_edges(by_bin.shape[1] - 1, mask.device)),
            place[..., 1].contiguous(),
            same_chain[0] if same_chain else of_i,
            *(w2, b2, w3, b3, norm_weight, norm_bias, mask, result, num_pairs, length, EPSILON),
            num_trans=positions.shape[2],
            num_bins=by_bin.shape[1] - 1,
            hidden=hidden,
            middle=len(w2),
            out=out,
            HAS_CHAIN=bool(same_chain),
            BLOCK_M=pairs,
            BLOCK_H=_block(hidden),
            BLOCK_K=_block(len(w2)),
            BLOCK_O=_block(out),
            PRECISION="ieee" if exact else "tf32",
            num_warps=WARPS,
        )
    return result


def _block(width: int) -> int:
    return max(16, triton.next_power_of_2(width))


@embed_pairs.register_fake
def _(mine, shared):
    of_i, mask = mine[:2]
    return mask.new_empty(*of_i.shape[:2], of_i.shape[1], len(shared[7]))


def _keep(ctx, inputs, output):
    mine, shared = inputs
    ctx.save_for_backward(*mine, *shared)
    ctx.num_mine = len(mine)


def _gradients(ctx, grad):
    kept = ctx.saved_tensors  # which a checkpoint gives once
    mine, shared = kept[: ctx.num_mine], kept[ctx.num_mine :]
    wanted = [*ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    rows = rows_within(LARGEST_ON_GPU, shared[0].numel())
    made = iter(gathered.edges.gradients(grad, rows, mine, shared, wanted))
    found = [next(made) if wants else None for wants in wanted]
    return found[: len(mine)], found[len(mine) :]


embed_pairs.register_autograd(_gradients, setup_context=_keep)
