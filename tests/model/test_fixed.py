"""What stays as it is between sampling steps, made once; and a forward pass that asks its device for nothing."""

import dataclasses

import pytest
import torch

from tests.factories import noisy_batch, results, tiny_model

EMBEDDINGS = [
    {},
    {
        "node_embed": {"c_position": 8, "c_time": 8, "embed_chain": True},
        "edge_embed": {"feature_width": 8, "num_bins": 6, "embed_chain": True},
    },
    {"trunk": {"stages": [{"block": "flash_ipa", "num_heads": 2, "update_backbone": True}]}},
]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("settings", EMBEDDINGS, ids=["plain", "chains", "no edges"])
def test_given_or_made_the_prediction_is_the_same_bit_for_bit(settings, autocast):
    model, batch = tiny_model(**settings), noisy_batch()
    other = noisy_batch(seed=4)
    later = dataclasses.replace(batch, trans_t=other.trans_t, trans_sc=other.trans_sc, aatypes_t=other.aatypes_t)
    fixed = model.fixed(batch)  # outside of autocast, as a sampler may do
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, expected = model(later, fixed), model(later)
    for name, value in results(expected).items():
        assert torch.equal(results(found)[name], value), name


def test_it_is_made_of_the_masks_and_indices_alone():
    model, batch = tiny_model(**EMBEDDINGS[1]), noisy_batch()
    kept = {"res_mask", "diffuse_mask", "chain_idx", "res_idx"}
    blank = {
        f.name: torch.full_like(value, 0)
        for f in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, f.name), torch.Tensor) and f.name not in kept
    }
    found, expected = model.fixed(dataclasses.replace(batch, **blank)), model.fixed(batch)
    assert found.language is expected.language is None  # see tests/sampling/test_language.py
    for field in dataclasses.fields(expected):
        if field.name != "language":
            assert torch.equal(getattr(found, field.name), getattr(expected, field.name)), field.name


@pytest.mark.slow
@pytest.mark.parametrize("settings", EMBEDDINGS, ids=["plain", "chains", "no edges"])
def test_a_step_compiles_to_one_graph(settings):
    """So it never waits for a number from its device, which would break the graph."""
    model, batch = tiny_model(**settings), noisy_batch()
    torch.compiler.reset()
    with torch.no_grad():
        fixed = model.fixed(batch)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        for name, value in results(model(batch, fixed)).items():
            torch.testing.assert_close(results(compiled(batch, fixed))[name], value)
