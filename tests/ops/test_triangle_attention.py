"""Triangle attention: the version that is used against the reference, masks, precision, memory."""

import pytest
import torch

from app.ops.triangle_attention import chunked, reference, triangle_attention
from tests.factories import generator
from tests.memory import peak

B, N, H, D = 2, 9, 3, 4


def arguments(length: int = N, missing: int = 2, size: int = B) -> list[torch.Tensor]:
    """q, k, v, bias, mask: padding in the last example, and in the first one row without any key."""
    source = generator()
    q, k, v = (torch.randn(size, length, H, length, D, generator=source).requires_grad_() for _ in range(3))
    bias = torch.randn(size, H, length, length, generator=source).requires_grad_()
    present = torch.ones(size, length)
    present[-1, length - missing :] = 0
    mask = present[:, :, None] * present[:, None]
    mask[0, 1] = 0
    return [q, k, v, bias, mask]


@pytest.fixture(params=[1, 2 * B * H * N**2, 4 * B * H * N**2, 2**30], ids=["1 row", "2 rows", "4 rows", "all"])
def largest(request, monkeypatch):
    monkeypatch.setattr(chunked, "LARGEST", request.param)


@pytest.mark.usefixtures("largest")
def test_it_is_the_reference_in_values_and_all_gradients():
    found, expected = arguments(), arguments()
    out, judge = triangle_attention(*found), reference.triangle_attention(*expected)
    torch.testing.assert_close(out, judge, atol=1e-6, rtol=1e-5)
    out.pow(3).sum().backward()
    judge.pow(3).sum().backward()
    for leaf, other in zip(found[:4], expected[:4], strict=True):
        torch.testing.assert_close(leaf.grad, other.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("largest")
def test_absent_keys_reach_nothing_in_values_or_gradients():
    given = arguments()
    q, k, v, bias, mask = given
    out = triangle_attention(*given)
    absent = mask == 0
    other = [x.detach().clone() for x in (k, v)]
    for x in other:
        x.transpose(2, 3)[absent] = 50.0
    with_keys = mask.any(-1)
    assert torch.equal(triangle_attention(q, *other, bias, mask)[with_keys], out[with_keys])
    (out * with_keys[..., None, None, None]).square().sum().backward()
    for leaf in (k, v):
        assert (leaf.grad.transpose(2, 3)[absent] == 0).all()
        assert leaf.grad.any()


@pytest.mark.usefixtures("largest")
def test_rows_without_any_key_are_finite_in_values_and_gradients():
    given = arguments()
    given[-1] = torch.zeros(B, N, N)
    out = triangle_attention(*given)
    out.square().sum().backward()
    assert all(x.isfinite().all() for x in (out, *(leaf.grad for leaf in given[:4])))


def test_it_is_torchs_attention_row_by_row():
    q, k, v, bias, mask = arguments(missing=0)
    seen = torch.nn.functional.scaled_dot_product_attention(q[:, 0], k[:, 0], v[:, 0], bias)
    torch.testing.assert_close(triangle_attention(q, k, v, bias, mask)[:, 0], seen)


def test_logits_are_float32_under_autocast_and_for_narrow_inputs():
    given = arguments()
    with torch.autocast("cpu", torch.bfloat16):
        inside = triangle_attention(*given)
    assert torch.equal(inside, triangle_attention(*given))
    narrow = triangle_attention(*(x.bfloat16() for x in given[:4]), given[4])
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), inside, atol=0.05, rtol=0.05)


def test_memory_grows_with_the_square_of_the_length(monkeypatch):
    monkeypatch.setattr(chunked, "LARGEST", 1)
    used = {length: peak(triangle_attention, *arguments(length, size=1)) for length in (16, 32, 64)}
    assert used[32] < 4.2 * used[16]
    assert used[64] < 4.1 * used[32]
    by_reference = [peak(reference.triangle_attention, *arguments(length, size=1)) for length in (32, 64)]
    assert by_reference[1] > 7 * by_reference[0]
    assert used[64] < by_reference[1] / 6


def test_short_proteins_are_done_in_one_go():
    """Up to 128 residues at the default size of 4 heads, where recomputing would cost time for nothing."""
    assert 4 * 128**3 <= chunked.LARGEST < 4 * 256**3
