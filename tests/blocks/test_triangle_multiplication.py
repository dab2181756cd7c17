"""The triangle multiplication block against AlphaFold 3's algorithms 11 to 13, and its dropout."""

import torch

from app.phase import ByPhase
from tests.blocks import alphafold3
from tests.blocks.alphafold3 import part
from tests.blocks.pair_states import C_Z, assert_is, block, state


def test_it_is_algorithms_12_and_13_and_a_transition():
    def algorithm(s, z, present, w):
        z = alphafold3.multiplications(z, present, part(w, "multiplication"))
        return s, z + alphafold3.transition(z, part(w, "transition"))

    assert_is(algorithm, block("triangle_multiplication", transition_factor=2))


def test_dropout_takes_whole_rows_at_its_rate():
    """Each of both updates is dropped for a whole row of edges or kept for it, scaled by 1 / (1 - rate)."""
    module = block("triangle_multiplication", dropout=0.25).train()
    shape = (50, 40, 3, C_Z)
    factors = module.multiplication.dropout(torch.ones(shape))
    assert torch.equal(factors, factors[:, :, :1, :1].expand(shape))
    assert set(factors.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert 0.22 < (factors == 0).float().mean() < 0.28


def test_in_training_rows_lose_their_updates_and_the_others_gain():
    module = block("triangle_multiplication", dropout=0.5)
    given, updates = state(), module.multiplication
    torch.manual_seed(3)
    with torch.no_grad():
        first = updates.outgoing(given.edge, given.edge_mask) * given.edge_mask[..., None]
        updates.incoming.p_out.weight.zero_()  # so that the first update is seen alone
        change = updates.train()(given.edge, given.edge_mask) - given.edge
    lost = (change[0] == 0).flatten(1).all(-1)
    assert 0 < lost.sum() < len(lost)
    torch.testing.assert_close(change[0][~lost], 2 * first[0][~lost], atol=1e-5, rtol=1e-5)


def test_rates_of_training_and_inference_are_told_apart():
    module = block("triangle_multiplication", dropout=ByPhase[float](train=0.0, infer=0.5))
    given = state()
    with torch.no_grad():
        assert not torch.equal(module(given).edge, module(given).edge)
        module.train()
        assert torch.equal(module(given).edge, module(given).edge)
