"""Attention within sequences: against torch's own one by one, and nothing between them."""

import pytest
import torch
import torch.nn.functional as F

from app.ops.esm_attention import Sequences, esm_attention, packed
from app.ops.select import operations

LENGTHS = [(5,), (4, 4, 4), (7, 1, 3)]
BACKENDS = ("reference", "torch")


def arguments(lengths: tuple[int, ...]) -> tuple:
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    return *torch.randn(3, sum(lengths), 2, 8), Sequences(starts, lengths)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_sequence_is_attended_for_itself(backend, lengths):
    q, k, v, sequences = arguments(lengths)
    found = operations()["esm_attention"].function(backend)(q, k, v, sequences)
    for ours, *one in zip(*(x.split(lengths) for x in (found, q, k, v)), strict=True):
        expected = F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in one)).transpose(0, 1)
        torch.testing.assert_close(ours, expected)


def test_one_kernel_serves_unequal_lengths_where_the_device_has_it(monkeypatch):
    q, k, v, sequences = arguments((7, 1, 3))
    seen = []

    def varlen(q, k, v, starts, starts_of_keys, longest, longest_of_keys):
        assert starts is starts_of_keys and longest == longest_of_keys == 7
        seen.append(starts.tolist())
        return v

    monkeypatch.setattr(packed, "varlen_attn", varlen)
    monkeypatch.setattr(packed, "runs_flash_attention", lambda device, dtype: dtype != torch.float32)
    assert packed.esm_attention(q.half(), k.half(), v.half(), sequences).dtype == torch.float16
    assert seen == [[0, 7, 8, 11]]
    packed.esm_attention(q, k, v, sequences)
    assert len(seen) == 1


def test_it_is_the_operation_that_models_call():
    assert esm_attention is operations()["esm_attention"]
