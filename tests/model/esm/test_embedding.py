"""The rescaling of masked sequences."""

import pytest
import torch
from torch import nn

from app.model.esm.embedding import MAX_MASK_RATIO, embedded

MASK, PADDING, LENGTH = 9, 8, 20


def scale(masked: int, length: int = LENGTH, padding: int = 0) -> float:
    """By what the tokens that are not masked are multiplied."""
    table = nn.Embedding(10, 3)
    ids = torch.zeros(1, length + padding, dtype=torch.int64)
    ids[0, 1 : 1 + masked] = MASK
    ids[0, length:] = PADDING
    out = embedded(table, ids, MASK, PADDING)[0]
    assert not out[1 : 1 + masked].any()
    return float((out[0] / table.weight[0]).mean().detach())


@pytest.mark.parametrize("masked", [0, 1, 5, 9, 10])
def test_up_to_the_bound_it_is_esms_own(masked):
    assert scale(masked) == pytest.approx(0.88 / (1 - masked / LENGTH), rel=1e-5)


def test_beyond_the_bound_it_stays_and_nothing_jumps():
    at_bound = scale(int(MAX_MASK_RATIO * LENGTH))
    for masked in (11, 15, 18):
        assert scale(masked) == pytest.approx(at_bound, rel=1e-5)
    assert scale(501, 1000) == pytest.approx(scale(500, 1000), rel=1e-5)
    assert scale(499, 1000) == pytest.approx(scale(500, 1000), rel=3e-3)


def test_padding_does_not_count():
    assert scale(4, padding=30) == pytest.approx(scale(4), rel=1e-6)


def test_the_weights_type_stays():
    table = nn.Embedding(10, 3).bfloat16()
    assert embedded(table, torch.zeros(1, 4, dtype=torch.int64), MASK, PADDING).dtype == torch.bfloat16
