"""What an operation sees of its arguments before it chooses a backend."""

import pytest
import torch

from app.ops.check import with_leaves
from app.ops.select import operations

HERE = operations()
ARGUMENTS = [(name, leaf) for name, operation in HERE.items() for leaf in with_leaves(operation.example(2))[1]]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_a_gradient_of_any_argument_alone_is_seen(name, argument):
    """Of a frame, of a bias: a backend without a backward pass must not get the call. What the result does not depend
    on smoothly, such as the positions of a distogram, is no such argument."""
    operation = HERE[name]
    given, leaves = with_leaves(operation.example(2))
    for other, leaf in leaves.items():
        leaf.requires_grad_(other == argument)
    made = operation.function("reference")(**given)
    has_gradient = any(out.requires_grad for out in (made if isinstance(made, tuple) else (made,)))
    assert operation.describe(**given).backward == has_gradient
    assert has_gradient or (name, argument.partition(".")[0]) == ("edge_embedding", "trans")


@pytest.mark.parametrize("name", HERE)
def test_without_any_or_with_gradients_off_a_call_is_forward_alone(name):
    example = HERE[name].example(2)
    assert not HERE[name].describe(**example).backward
    with torch.no_grad():
        assert not HERE[name].describe(**with_leaves(example)[0]).backward
