"""Settings and errors that rows rest on."""

import pytest
import torch

from app.bench.case import (
    OF_MODELS,
    Point,
    kernels,
    largest_difference,
    largest_share,
    largest_share_of_each,
)  # fmt: skip
from app.ops.settings import OPERATIONS, KernelSettings


def test_a_model_runs_on_a_backend_where_operations_have_it():
    assert kernels("auto") == KernelSettings()
    assert all(getattr(kernels("reference"), name) == "reference" for name in OPERATIONS)
    trifast = kernels("trifast")
    assert (trifast.triangle_attention, trifast.edge_transition) == ("trifast", "auto")
    triton = kernels("triton")
    assert (triton.edge_transition, triton.self_attention) == ("triton", "auto")  # the latter has no backward pass
    assert {"reference", "auto", "torch", "triton"} <= set(OF_MODELS)


def test_a_point_knows_its_recipe():
    assert Point("model-train:tiny", "cpu", "float32", 8, 1).recipe == "tiny"
    assert Point("model-train", "cpu", "float32", 8, 1).recipe == "multiflow_legacy"


def test_errors():
    expected = {"large": torch.tensor([100.0, -200.0]), "small": torch.tensor([1.0])}
    found = {"large": torch.tensor([100.0, -202.0]), "small": torch.tensor([1.5])}
    assert largest_difference(found, expected) == pytest.approx(2)
    assert largest_share(found, expected) == pytest.approx(0.01)
    assert largest_share_of_each(found, expected) == pytest.approx(0.5)


@pytest.mark.parametrize("error", [largest_difference, largest_share, largest_share_of_each])
def test_nothing_finite_is_infinitely_wrong(error):
    expected = {"out": torch.ones(2)}
    assert error({"out": torch.tensor([1.0, torch.nan])}, expected) == float("inf")
    assert error({"out": torch.tensor([1.0, torch.inf])}, expected) == float("inf")


def test_a_gradient_that_is_only_rounding_is_not_held_to_itself():
    expected = {"some": torch.ones(2), "none": torch.full((2,), 1e-6)}
    assert largest_share_of_each({"some": torch.ones(2), "none": torch.zeros(2)}, expected) < 1e-2
