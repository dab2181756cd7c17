"""Node and edge embedding: the order of the features, what is masked, what the switches add."""

import dataclasses

import pytest
import torch
from torch import nn

from app.blocks.parts.embedding import index_embedding, time_embedding
from app.model.edge_embed import EdgeEmbed, EdgeEmbedSettings
from app.model.node_embed import NodeEmbed, NodeEmbedSettings
from app.ops.edge_embedding.distogram import distogram
from app.ops.edge_embedding.reference import features
from tests.factories import noisy_batch, perturb, tiny_model


class Catch(nn.Module):
    """Stands in the place of the projection and gives back what it is given."""

    def forward(self, features):
        return features


def node_features(batch, num_tokens=21, **settings) -> tuple[NodeEmbed, torch.Tensor]:
    embed = perturb(NodeEmbed(NodeEmbedSettings(c_position=8, c_time=6, **settings), 16, num_tokens))
    embed.project = Catch()
    return embed, embed(batch, *embed.places(batch))


def edge_features(batch, **settings) -> tuple[EdgeEmbed, torch.Tensor, torch.Tensor]:
    """What the operation joins for the projection, which has a column for each."""
    embed = perturb(EdgeEmbed(EdgeEmbedSettings(feature_width=8, num_bins=6, **settings), 16, 8))
    node = torch.randn(*batch.res_mask.shape, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.model.edge_embed.edge_embedding", lambda *given: features(*given[:6]))
        found = embed(node, batch, embed.relative_positions(12, node.device), batch.res_mask[:, :, None])
    assert found.shape[-1] == embed.project[0].in_features
    return embed, node, found


def per_residue(x: torch.Tensor) -> torch.Tensor:
    return x[:, None].expand(-1, 12, -1)


def test_node_features_are_in_multiflows_order():
    batch = noisy_batch()
    embed, found = node_features(batch, embed_chain=True)
    mask = batch.res_mask[..., None]
    expected = [
        index_embedding(batch.res_idx, 8, 2056) * mask,
        batch.diffuse_mask[..., None],
        per_residue(time_embedding(batch.so3_t, 6)) * mask,
        per_residue(time_embedding(batch.r3_t, 6)) * mask,
        embed.token.weight[batch.aatypes_t],
        per_residue(time_embedding(batch.cat_t, 6)) * mask,
        batch.aatypes_sc,
        index_embedding(batch.chain_idx, 8, 100) * mask,
    ]
    torch.testing.assert_close(found, torch.cat(expected, -1))


def test_without_tokens_the_node_embedding_sees_none():
    batch = noisy_batch()
    _, found = node_features(batch, embed_tokens=False)
    other = dataclasses.replace(batch, aatypes_t=0 * batch.aatypes_t, aatypes_sc=0 * batch.aatypes_sc, cat_t=batch.r3_t)
    assert torch.equal(node_features(other, embed_tokens=False)[1], found)
    assert found.shape[-1] == 8 + 1 + 2 * 6


def test_twenty_tokens_narrow_the_previous_logits():
    batch = noisy_batch()
    _, found = node_features(batch, num_tokens=20)
    torch.testing.assert_close(found[..., -20:], batch.aatypes_sc[..., :20])


def test_edge_features_are_in_multiflows_order():
    batch = noisy_batch()
    embed, node, found = edge_features(batch, embed_chain=True)
    projected, position = embed.node(node), torch.arange(12)
    relative = embed.relative(index_embedding(position[:, None] - position, 8, 2056))
    for b, i, j in [(0, 0, 0), (0, 3, 7), (1, 7, 3), (1, 11, 0)]:
        expected = [
            projected[b, i],
            projected[b, j],
            relative[i, j],
            distogram(batch.trans_t, 6)[b, i, j],
            distogram(batch.trans_sc, 6)[b, i, j],
            (batch.chain_idx[b, i] == batch.chain_idx[b, j]).float()[None],
            batch.diffuse_mask[b, [i, j]],
        ]
        torch.testing.assert_close(found[b, i, j], torch.cat(expected))


@pytest.mark.parametrize("off", ["self_condition", "embed_diffuse_mask"])
def test_edge_switches_take_their_features_away(off):
    batch = noisy_batch()
    width = edge_features(batch)[2].shape[-1] - edge_features(batch, **{off: False})[2].shape[-1]
    assert width == {"self_condition": 6, "embed_diffuse_mask": 2}[off]


def test_the_relative_position_is_that_of_the_rows_whatever_the_residue_index_says():
    batch = noisy_batch()
    torch.manual_seed(0)
    first = edge_features(batch)[2]
    torch.manual_seed(0)
    assert torch.equal(edge_features(dataclasses.replace(batch, res_idx=5 * batch.res_idx + 9))[2], first)


@pytest.mark.parametrize(
    "settings",
    [
        {"node_embed": {"c_position": 8, "c_time": 8, "mlp": False, "embed_chain": True}},
        {"edge_embed": {"feature_width": 8, "num_bins": 6, "self_condition": False, "embed_chain": True}},
        {"num_tokens": 20},
    ],
)
def test_models_of_every_width_run(settings):
    prediction = tiny_model(**settings)(noisy_batch())
    assert prediction.pred_logits.isfinite().all()
    assert prediction.pred_logits.shape[-1] == settings.get("num_tokens", 21)
