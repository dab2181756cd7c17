"""Double attention against equations 3 to 5 of A2-Nets, pair by pair."""

import pytest
import torch

from app.ops.double_attention import double_attention
from tests.factories import generator
from tests.memory import LargestTensor

B, N, C, M = 2, 5, 3, 4


def arguments(length: int = N, missing: int = 0) -> list[torch.Tensor]:
    source = generator()
    mask = torch.ones(B, length)
    mask[1, length - missing :] = 0
    logits = (torch.randn(B, length, length, width, generator=source) for width in (C, M, M))
    return [*logits, mask[:, :, None] * mask[:, None]]


def literal(features, gather, distribute, edge_mask) -> torch.Tensor:
    out = torch.zeros_like(features)
    for b in range(B):
        pairs = [(i, j) for i in range(N) for j in range(N) if edge_mask[b, i, j]]
        descriptors = []
        for m in range(M):
            total = sum(gather[b, i, j, m].exp() for i, j in pairs)
            descriptors.append(sum(gather[b, i, j, m].exp() / total * features[b, i, j] for i, j in pairs))
        for i, j in pairs:
            total = distribute[b, i, j].exp().sum()
            out[b, i, j] = sum(distribute[b, i, j, m].exp() / total * descriptors[m] for m in range(M))
    return out


def value_and_gradients(function, a: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in a[:3]]
    out = function(*leaves, a[3].to(dtype))
    (out * torch.randn(out.shape, generator=generator(3))).sum().backward()
    return [out, *(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("missing", [0, 2, N])
def test_it_is_gather_and_distribute_over_the_present_pairs(missing):
    a = arguments(missing=missing)
    found = value_and_gradients(double_attention, a, torch.float32)
    for f, e in zip(found, value_and_gradients(literal, a, torch.float64), strict=True):
        torch.testing.assert_close(f.double(), e, atol=1e-5, rtol=1e-5)


def test_absent_pairs_get_nothing_and_give_nothing():
    a = arguments(missing=2)
    absent = a[3] == 0
    for part in value_and_gradients(double_attention, a, torch.float32):
        assert (part[absent] == 0).all()
        assert part[~absent].any()


def test_memory_goes_with_the_number_of_pairs():
    largest = []
    for length in (16, 32, 64):
        with LargestTensor() as seen:
            value_and_gradients(double_attention, arguments(length), torch.float32)
        largest.append(seen.numel / length**2)
    assert largest[0] == largest[1] == largest[2]
