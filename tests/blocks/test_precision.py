"""Under autocast, what deals with frames and softmaxes over all residues runs in float32, with autocast off."""

import importlib
import inspect

import pytest
import torch

from tests.blocks.test_every_block import block, state
from tests.factories import generator


@pytest.mark.parametrize(
    ("name", "module", "operation"),
    [
        ("geometric", "app.blocks.geometric", "geometric_attention"),
        ("pairformer", "app.blocks.parts.pair_bias_attention", "pair_bias_attention"),
    ],
)
def test_operations_are_called_in_float32_without_autocast(name, module, operation, monkeypatch):
    module, seen = importlib.import_module(module), []
    original = getattr(module, operation)

    def watched(*given):
        seen.append((torch.is_autocast_enabled("cpu"), {x.dtype for x in given if isinstance(x, torch.Tensor)}))
        return original(*given)

    monkeypatch.setattr(module, operation, watched)
    with torch.autocast("cpu", torch.bfloat16):
        block(name)(state())
    assert seen == [(False, {torch.float32})]


def test_points_frames_and_masks_of_factorised_attention_are_float32_where_the_rest_is_narrow(monkeypatch):
    """Its kernels take half precision, with float32 for logits and softmax inside."""
    module, seen = importlib.import_module("app.blocks.parts.factorised_point_attention"), []
    operation = module.factorised_attention
    names = tuple(inspect.signature(operation.function("reference")).parameters)

    def watched(*given):
        flat = {name: value.trans if name == "frames" else value for name, value in zip(names, given, strict=True)}
        seen.append((torch.is_autocast_enabled("cpu"), {name for name, x in flat.items() if x.dtype == torch.float32}))
        return operation(*given)

    monkeypatch.setattr(module, "factorised_attention", watched)
    made, given = block("flash_ipa"), state()
    exact = made(given)
    assert seen.pop() == (False, set(names))
    with torch.autocast("cpu", torch.bfloat16):
        found = made(given)
    points = {"q_points", "k_points", "v_points", "point_weight", "frames", "node_mask"}
    assert seen == [(False, points)]
    torch.testing.assert_close(found.node, exact.node, atol=0.05, rtol=0.05)


def test_point_attention_is_called_without_autocast_on_positions_in_float32(monkeypatch):
    """Scalars and edges come as they are: a backend takes products of them in their type and sums in float32."""
    from app.blocks.parts import point_attention

    original, seen = point_attention.invariant_point_attention, []

    def watched(q, k, v, q_points, k_points, v_points, edge, *rest):
        frames, mask = rest[-3:-1]
        out = original(q, k, v, q_points, k_points, v_points, edge, *rest)
        positions = (q_points, k_points, v_points, frames.rotmats, frames.trans, mask, *out)
        seen.append((torch.is_autocast_enabled("cpu"), q.dtype, edge.dtype, {x.dtype for x in positions}))
        return out

    monkeypatch.setattr(point_attention, "invariant_point_attention", watched)
    given = state()
    with torch.autocast("cpu", torch.bfloat16):
        block("ipa")(given.replace(edge=given.edge.bfloat16()))
    assert seen == [(False, torch.bfloat16, torch.bfloat16, {torch.float32})]


def test_the_softmax_over_all_pairs_is_taken_in_float32():
    from app.ops.double_attention import double_attention

    source, mask = generator(), torch.ones(1, 40, 40)
    features, gather, distribute = (torch.randn(1, 40, 40, 4, generator=source) for _ in range(3))
    exact = double_attention(features.bfloat16(), gather.bfloat16().float(), distribute, mask)
    found = double_attention(features.bfloat16(), gather.bfloat16(), distribute, mask)
    assert torch.equal(found, exact)
