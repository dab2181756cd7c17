"""Attention with pair bias: the version that is used against the reference, masks, precision, memory."""

import torch

from app.ops.pair_bias_attention import pair_bias_attention, reference
from tests.factories import generator
from tests.memory import peak

B, N, H, D = 2, 9, 3, 4


def arguments(length: int = N, missing: int = 2) -> list[torch.Tensor]:
    source = generator()
    q, k, v = (torch.randn(B, H, length, D, generator=source).requires_grad_() for _ in range(3))
    bias = torch.randn(B, H, length, length, generator=source).requires_grad_()
    mask = torch.ones(B, length)
    mask[-1, length - missing :] = 0
    return [q, k, v, bias, mask]


def test_it_is_the_reference_in_values_and_all_gradients():
    for missing in (0, 2, N):
        found, expected = arguments(missing=missing), arguments(missing=missing)
        out, judge = pair_bias_attention(*found), reference.pair_bias_attention(*expected)
        torch.testing.assert_close(out, judge, atol=1e-6, rtol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(pair_bias_attention(*found), judge, atol=1e-6, rtol=1e-5)
        out.pow(3).sum().backward()
        judge.pow(3).sum().backward()
        for leaf, other in zip(found[:4], expected[:4], strict=True):
            torch.testing.assert_close(leaf.grad, other.grad, atol=1e-6, rtol=1e-5)


def test_the_reference_is_softmax_over_present_keys_written_out():
    q, k, v, bias, mask = (x.detach().double() for x in arguments())
    found = reference.pair_bias_attention(*arguments())
    for b in range(B):
        keys = [j for j in range(N) if mask[b, j]]
        for h in range(H):
            for i in range(N):
                logits = [q[b, h, i] @ k[b, h, j] / D**0.5 + bias[b, h, i, j] for j in keys]
                weights = torch.stack(logits).exp()
                expected = sum(w * v[b, h, j] for w, j in zip(weights / weights.sum(), keys, strict=True))
                torch.testing.assert_close(found[b, h, i].double(), expected, atol=1e-5, rtol=1e-5)


def test_absent_keys_reach_nothing_in_values_or_gradients():
    q, k, v, bias, mask = arguments()
    out = pair_bias_attention(q, k, v, bias, mask)
    other = [x.detach().clone() for x in (k, v)]
    for x in other:
        x.transpose(1, 2)[mask == 0] = 50.0
    assert torch.equal(pair_bias_attention(q, *other, bias, mask), out)
    out.square().sum().backward()
    for leaf in (k, v):
        assert (leaf.grad.transpose(1, 2)[mask == 0] == 0).all()
    assert (bias.grad[-1, :, :, -2:] == 0).all()


def test_an_absent_example_is_finite_in_values_and_gradients():
    given = arguments(missing=N)
    out = pair_bias_attention(*given)
    out.square().sum().backward()
    assert all(x.isfinite().all() for x in (out, *(leaf.grad for leaf in given[:4])))


def test_it_runs_in_float32_under_autocast_and_gives_back_the_values_dtype():
    given = arguments()
    expected = pair_bias_attention(*given)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pair_bias_attention(*given), expected)
    narrow = [x.bfloat16() for x in given[:4]]
    found = pair_bias_attention(*narrow, given[4])
    assert found.dtype == torch.bfloat16
    judge = reference.pair_bias_attention(*(x.float() for x in narrow), given[4])
    torch.testing.assert_close(found, judge.bfloat16())


def test_without_gradients_no_logits_are_kept():
    given = [x.detach() for x in arguments(64)]
    logits = 4 * B * H * 64**2
    assert peak(pair_bias_attention, *given, backward=False) < 1.5 * logits  # the masked bias is one of that size
    assert peak(reference.pair_bias_attention, *given, backward=False) > 2.5 * logits


def test_memory_grows_with_the_square_of_the_length():
    assert peak(pair_bias_attention, *arguments(64)) < 4.1 * peak(pair_bias_attention, *arguments(32))


def test_the_mask_that_torch_is_handed_has_its_keys_side_by_side(monkeypatch):
    """CUDA's fused kernels refuse others, and what remains writes all logits out."""
    seen = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(q, k, v, mask, **options):
        seen.append(mask)
        return attention(q, k, v, mask, **options)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", watched)
    heads_last = torch.randn(2, 5, 5, 3)
    pair_bias_attention(*torch.randn(3, 2, 3, 5, 4), heads_last.permute(0, 3, 1, 2), torch.ones(2, 5))
    assert seen[0].stride(-1) == 1
