"""The triangle attention block against AlphaFold 3's algorithms 11, 14 and 15, its dropout, and long proteins."""

import torch

from app.blocks import build_block
from app.ops.triangle_attention import chunked
from tests.blocks import alphafold3
from tests.blocks.alphafold3 import part
from tests.blocks.pair_states import C_Z, assert_is, block, state

SIZES = {"pair_num_heads": 2, "pair_head_width": 3}


def test_it_is_algorithms_14_and_15_and_a_transition():
    def algorithm(s, z, present, w):
        z = alphafold3.attentions(z, present, part(w, "attention"), heads=2)
        return s, z + alphafold3.transition(z, part(w, "transition"))

    assert_is(algorithm, block("triangle_attention", **SIZES))


def test_dropout_takes_rows_after_the_first_and_columns_after_the_second():
    module = block("triangle_attention", **SIZES, dropout=0.25).attention.train()
    shape = (20, 30, 30, C_Z)
    rows, columns = module.dropout_rows(torch.ones(shape)), module.dropout_columns(torch.ones(shape))
    assert torch.equal(rows, rows[:, :, :1, :1].expand(shape))
    assert torch.equal(columns, columns[:, :1, :, :1].expand(shape))
    for factors in (rows, columns):
        assert set(factors.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
        assert 0.2 < (factors == 0).float().mean() < 0.3


def test_in_training_rows_lose_the_first_update_and_columns_the_second():
    for kept, other, sharing in (("starting", "ending", 1), ("ending", "starting", 2)):
        module, given = block("triangle_attention", **SIZES, dropout=0.5).attention, state()
        torch.manual_seed(1)
        with torch.no_grad():
            getattr(module, other).out.weight.zero_()  # so that one update is seen alone
            whole = module(given.edge, given.edge_mask) - given.edge
            change = module.train()(given.edge, given.edge_mask) - given.edge
        lost = (change[:1] == 0).all(-1)  # [1, N, N]
        along = lost.all(3 - sharing, keepdim=True)
        assert torch.equal(lost, along.expand_as(lost)), kept
        assert 0 < along.sum() < along.numel()
        torch.testing.assert_close(change[:1][~lost], 2 * whole[:1][~lost], atol=1e-5, rtol=1e-5)


def test_a_rate_for_inference_is_a_setting_like_another():
    module = build_block("triangle_attention", c_s=8, c_z=6, dropout={"train": 0.1, "infer": 0.4}).eval()
    assert module.attention.dropout_rows.rate == module.attention.dropout_columns.rate == 0.4
    module.train()
    assert module.attention.dropout_rows.rate == module.attention.dropout_columns.rate == 0.1


def test_going_through_a_long_protein_in_slices_changes_nothing(monkeypatch):
    module, given = block("triangle_attention", **SIZES), state(7)
    results = []
    for largest in (2**20, 1):
        monkeypatch.setattr(chunked, "LARGEST", largest)
        module.zero_grad()
        out = module(given).edge
        (out * given.edge_mask[..., None]).square().sum().backward()
        results.append([out, *(parameter.grad for parameter in module.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
