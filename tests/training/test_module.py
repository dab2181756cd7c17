"""The LightningModule: where its randomness comes from, self-conditioning, gradients, learning."""

import json

import pytest
import torch

from app.training.module import CodesignModule
from app.training.passes import Place
from tests.factories import generator, noisy_batch, padded, perturb, protein_batch, tiny_module, tiny_recipe

LOSSES = ["trans_loss", "rots_vf_loss", "aatypes_loss", "auxiliary_loss", "train_loss"]


def at(batch: int = 0, epoch: int = 0, rank: int = 0) -> Place:
    return Place(epoch, batch, rank)


def loss(module: CodesignModule, batch_idx: int = 0, **where) -> torch.Tensor:
    return module.outputs(protein_batch(3, 12, given=2, missing=2), at(batch_idx, **where))["loss"]


# Randomness


def test_a_step_depends_on_seed_epoch_batch_and_rank_alone():
    dropout = {"trunk": {"stages": [tiny_recipe()["model"]["trunk"]["stages"][0] | {"transformer_dropout": 0.3}]}}
    module = tiny_module(model=dropout).train()
    first = loss(module, 5, epoch=2, rank=1)
    torch.manual_seed(99)
    loss(module, 7)
    assert torch.equal(loss(module, 5, epoch=2, rank=1), first)
    others = [loss(module, 6, epoch=2, rank=1), loss(module, 5, epoch=3, rank=1), loss(module, 5, epoch=2, rank=0)]
    seeded = tiny_module(model=dropout).train()
    seeded.recipe = seeded.recipe.model_copy(update={"seed": 6})
    others.append(loss(seeded, 5, epoch=2, rank=1))
    assert len({value.item() for value in [first, *others]}) == 5


def test_dropout_differs_from_step_to_step():
    stage = tiny_recipe()["model"]["trunk"]["stages"][0] | {"transformer_dropout": 0.5}
    module = tiny_module(model={"trunk": {"stages": [stage]}}).train()
    noisy, found = noisy_batch(), []
    for batch_idx in (1, 2, 1):
        module._seed_dropout(at(batch_idx))
        found.append(module.losses(noisy)["train_loss"])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_a_step_reports_every_example():
    out = tiny_module().outputs(protein_batch(3, 12), at())
    assert list(out["losses"]) == LOSSES
    assert all(value.shape == (3,) and not value.requires_grad for value in out["losses"].values())
    assert out["structure_t"].shape == out["token_t"].shape == (3,)
    torch.testing.assert_close(out["loss"], out["losses"]["train_loss"].mean())
    assert out["loss"].requires_grad


def test_padding_does_not_change_the_losses_of_a_noisy_batch():
    module, batch = tiny_module(), noisy_batch()
    short, long = module.losses(batch), module.losses(padded(batch, 7))
    for name in LOSSES:
        torch.testing.assert_close(long[name], short[name], rtol=1e-3, atol=1e-4)


# Self-conditioning


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_steps_with_self_conditioning(share):
    module = tiny_module(flow={"self_condition_share": share})
    seen = [module._conditions(at(batch_idx)) for batch_idx in range(200)]
    assert sum(seen) / 200 == pytest.approx(share, abs=0.12)


def test_self_conditioning_is_the_models_own_first_estimate_and_the_truth_where_that_is_given():
    module, batch = tiny_module(), protein_batch(2, 12, given=4)
    noisy = module.noisy(batch, generator(), conditioned=True)
    blind = module.noisy(batch, generator(), conditioned=False)
    for name in ("trans_t", "rotmats_t", "aatypes_t", "r3_t", "cat_t"):
        assert torch.equal(getattr(noisy, name), getattr(blind, name))  # the noise is the same with and without
    first = module.model(blind)
    free = batch.diffuse_mask.bool()
    torch.testing.assert_close(noisy.trans_sc[free], first.pred_trans[free])
    torch.testing.assert_close(noisy.aatypes_sc[free], first.pred_logits[free])
    assert torch.equal(noisy.trans_sc[~free], batch.trans_1[~free])
    assert torch.equal(noisy.aatypes_sc[~free], torch.nn.functional.one_hot(batch.aatypes_1[~free], 21).float())
    assert not noisy.trans_sc.requires_grad
    assert not noisy.aatypes_sc.requires_grad


def test_unknown_residues_train_also_without_a_column_for_them():
    module = tiny_module(
        model={"num_tokens": 20}, flow={"tokens": "uniform", "self_condition_share": 1.0},
        sampler={"tokens": "uniform", "token_step": "plain"},
    )  # fmt: skip
    batch = protein_batch(2, 12, given=2)
    batch.aatypes_1[:, ::3] = 20
    out = module.outputs(batch, at())
    assert out["loss"].isfinite()
    assert module.noisy(batch, generator(), conditioned=True).aatypes_sc.shape == (2, 12, 21)


# Gradients and learning


@pytest.mark.parametrize("auxiliary", [0.0, 1.0])
def test_every_parameter_has_a_finite_gradient_that_is_not_zero(auxiliary):
    module = tiny_module(loss={"auxiliary_weight": auxiliary, "auxiliary_clamp": 1e4, "translation_clamp": 1e4}).train()
    loss(module).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_optimizer_has_all_parameters_and_the_recipes_settings():
    module = tiny_module(optimizer={"lr": 3e-3, "weight_decay": 0.2, "betas": [0.8, 0.9], "eps": 1e-7})
    optimizer = module.configure_optimizers()
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [id(p) for p in group["params"]] == [id(p) for p in module.model.parameters()]
    assert (group["lr"], group["weight_decay"], tuple(group["betas"]), group["eps"]) == (3e-3, 0.2, (0.8, 0.9), 1e-7)


def test_a_few_steps_on_one_batch_reduce_the_loss():
    torch.manual_seed(0)
    module = CodesignModule(tiny_recipe(optimizer={"lr": 1e-2}))
    optimizer, found = module.configure_optimizers(), []
    for _ in range(30):
        optimizer.zero_grad()
        found.append(loss(module, 3))  # the same noise every time
        found[-1].backward()
        optimizer.step()
    assert found[-1] < 0.6 * found[0]


def test_bfloat16_steps_come_close_to_float32_ones():
    module = tiny_module().train()
    exact = loss(module, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(module, 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0)
    found.backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


# The rest


def test_what_is_stored_is_plain_data_that_makes_the_module_again():
    module, checkpoint = tiny_module(), {}
    module.on_save_checkpoint(checkpoint)
    stored = json.loads(json.dumps(checkpoint["trunkline"]))
    assert stored == checkpoint["trunkline"]
    again = CodesignModule(stored["recipe"])
    assert again.recipe == module.recipe
    again.load_state_dict(module.state_dict())
    batch = noisy_batch()
    assert torch.equal(again.eval().model(batch).pred_trans, module.model(batch).pred_trans)


def test_designs_are_made_with_the_recipes_sampler():
    module = perturb(CodesignModule(tiny_recipe(sampler={"first_residue": 0, "fixed_t": 0.5}))).eval()
    seen = []
    module.model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0]))
    path = module.sample(task="forward_folding", steps=3, aatypes_1=torch.zeros(1, 5, dtype=torch.int64))
    assert path.final_atom37.shape == (1, 5, 37, 3)
    assert seen[0].res_idx.tolist() == [[0, 1, 2, 3, 4]]
    assert seen[0].cat_t.item() == 0.5
    module.sample(sampler="euler", steps=2, lengths=[5])
    assert seen[-1].res_idx.tolist() == [[1, 2, 3, 4, 5]]
