"""The recorder itself."""

import torch

from tests.memory import LargestTensor


def test_it_sees_the_largest_tensor_of_the_forward_pass():
    x = torch.ones(7, 1)
    with LargestTensor() as seen:
        (x @ x.mT).sum(0)
    assert seen.numel == 49
    assert seen.operator == "aten::mm"


def test_it_sees_the_backward_pass():
    x = torch.ones(7, 2, requires_grad=True)
    with LargestTensor() as seen:
        x.sum(0).prod().backward()
    assert seen.numel == 14
    assert "aten::mul" in seen.operators


def test_what_is_only_looked_at_larger_is_not_larger():
    with LargestTensor() as seen:
        torch.ones(5).expand(100, 5).sum(1, keepdim=True)
    assert seen.numel == 100
