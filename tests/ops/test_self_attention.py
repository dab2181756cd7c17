"""Self-attention with a key mask against torch's own."""

import torch
import torch.nn.functional as F

from app.ops.self_attention import self_attention
from tests.factories import generator


def qkv(size: int = 2, heads: int = 3, length: int = 7, width: int = 4) -> list[torch.Tensor]:
    source = generator()
    return [torch.randn(size, heads, length, width, generator=source) for _ in range(3)]


def mask() -> torch.Tensor:
    mask = torch.ones(2, 7)
    mask[1, 4:] = 0
    return mask


def test_it_is_softmax_attention():
    expected = F.scaled_dot_product_attention(*qkv(), attn_mask=mask().bool()[:, None, None, :])
    torch.testing.assert_close(self_attention(*qkv(), mask()), expected)


def test_absent_keys_reach_no_row():
    q, k, v = (x.requires_grad_() for x in qkv())
    self_attention(q, k, v, mask()).square().sum().backward()
    for leaf in (k, v):
        assert (leaf.grad[1, :, 4:] == 0).all()
        assert leaf.grad.isfinite().all()


def test_without_any_key_the_result_is_finite():
    q, k, v = (x.requires_grad_() for x in qkv())
    out = self_attention(q, k, v, torch.zeros(2, 7))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in (q, k, v))


def test_dropout_is_on_the_weights_and_keeps_their_mean():
    q, k, _ = qkv(size=1, heads=1, length=1000)
    ones = torch.ones(1, 1, 1000, 1)
    out = self_attention(q, k, ones, torch.ones(1, 1000), dropout=0.5)
    assert out.std() > 0.01
    assert (out.mean() - 1).abs() < 0.01
