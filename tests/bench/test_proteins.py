"""What is measured with: chains that could be proteins, models in which nothing hides."""

import pytest
import torch

from app.bench.models import recomputing
from app.bench.proteins import model_of, noisy_batch, recipe_of
from app.errors import UserError
from app.flow.settings import FlowSettings


def test_chains_have_the_steps_of_proteins():
    batch = noisy_batch(20, 2, FlowSettings())
    assert batch.trans_t.shape == (2, 20, 3) and batch.rotmats_t.shape == (2, 20, 3, 3)
    steps = batch.trans_1.diff(dim=1).norm(dim=-1)
    torch.testing.assert_close(steps, torch.full_like(steps, 3.8))
    assert batch.trans_sc.abs().sum() > 0 and batch.aatypes_sc.abs().sum() > 0


def test_no_weight_is_zero_and_all_is_the_same_each_time():
    state = torch.get_rng_state()
    one, other = (model_of(recipe_of("tiny")) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.abs().max() > 0 for parameter in one.parameters())
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=0)


def test_an_unknown_recipe_is_the_users():
    with pytest.raises(UserError, match="tiny"):
        recipe_of("tinyy")


@pytest.mark.parametrize("name", ["multiflow_legacy", "linear_memory"])
def test_checkpointing_reaches_every_stage(name):
    def flags(stages) -> set[bool]:
        return {flag for one in stages for flag in (flags(one.stages) if hasattr(one, "repeat") else {one.checkpoint})}

    recipe = recipe_of(name)
    for wanted in (True, False):
        assert flags(recomputing(recipe, wanted).model.trunk.stages) == {wanted}
