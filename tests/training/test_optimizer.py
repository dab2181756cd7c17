"""Groups of parameters: who is in which, what AdamW is told, and whose state is whose when the groups change."""

import pytest
import torch

from app.errors import UserError
from app.legacy import multiflow
from app.training.optimizer import GroupSettings, OptimizerSettings, build_optimizer, group_names, parameter_order
from app.training.run import train
from tests.factories import tiny_module
from tests.training import runs
from tests.training.runs import arguments, assert_same_weights

GROUPS = "optimizer.groups=[{match: 'head.*', lr_scale: 0.5}, {max_dim: 1, weight_decay: 0.0}]"
TWO = (GroupSettings(match="head.*", lr_scale=0.1), GroupSettings(max_dim=1, weight_decay=0.0))


def test_each_parameter_is_in_the_first_group_that_takes_it():
    model, settings = tiny_module().model, OptimizerSettings(lr=2e-3, weight_decay=0.1, groups=TWO)
    rest, head, vectors = group_names(model, settings)
    assert sorted(rest + head + vectors) == sorted(name for name, _ in model.named_parameters())
    assert all(name.startswith("head.") for name in head) and "head.layers.0.bias" in head
    sizes = {name: parameter.dim() for name, parameter in model.named_parameters()}
    assert {sizes[name] for name in vectors} == {1} and all(sizes[name] > 1 for name in rest)
    optimizer = build_optimizer(model, settings)
    told = [(group["lr"], group["weight_decay"], group["betas"]) for group in optimizer.param_groups]
    assert told == [(2e-3, 0.1, (0.9, 0.999)), (2e-4, 0.1, (0.9, 0.999)), (2e-3, 0.0, (0.9, 0.999))]
    numbered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    by_name = dict(model.named_parameters())
    assert all(by_name[n] is p for n, p in zip(parameter_order(model, settings), numbered, strict=True))


def test_a_group_that_takes_nothing_is_an_error():
    settings = OptimizerSettings(groups=(GroupSettings(match="trunk.*"), GroupSettings(match="trunk.stages.*")))
    with pytest.raises(UserError, match=r"optimizer\.groups\.1: no parameter is left for match=trunk\.stages"):
        group_names(tiny_module().model, settings)


def test_weight_decay_and_rates_do_what_the_groups_say():
    """Without gradients AdamW only decays: w <- w - lr wd w."""
    model = tiny_module().model
    optimizer = build_optimizer(model, OptimizerSettings(lr=0.1, weight_decay=0.5, groups=TWO))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        kept = 1 - 0.1 * 0.1 * 0.5 if name.startswith("head.") else 1 - 0.1 * 0.5 * (parameter.dim() > 1)
        torch.testing.assert_close(parameter.detach(), kept * before[name])


def test_a_scale_of_0_keeps_parameters_as_they_are(tmp_path):
    frozen = "optimizer.groups=[{match: 'node_embed.*', lr_scale: 0.0}]"
    for steps in (1, 3):
        train(arguments(tmp_path, frozen, f"trainer.max_steps={steps}", f"out={tmp_path / str(steps)}"))
    one, three = runs.weights(tmp_path / "1"), runs.weights(tmp_path / "3")
    same = {name for name in one if torch.equal(one[name], three[name])}
    assert same >= {name for name in one if name.startswith("model.node_embed")} and len(same) < len(one)


@pytest.mark.parametrize("typed", ["optimizer.groups.0.lr=1", "optimizer.groups=[{match: 'nothing.*'}]"])
def test_mistakes_are_told_before_anything_is_written(tmp_path, typed):
    with pytest.raises(UserError, match=r"optimizer\.groups"):
        train(arguments(tmp_path, typed, "trainer.max_steps=1", f"out={tmp_path / 'out'}"))
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_keeps_its_groups(tmp_path):
    made = arguments(tmp_path, GROUPS)
    train([*made, "trainer.max_steps=4", f"out={tmp_path / 'whole'}"])
    train([*made, "trainer.max_steps=2", f"out={tmp_path / 'out'}"])
    train([f"resume={tmp_path / 'out/checkpoints/last.ckpt'}", "trainer.max_steps=4"])
    assert_same_weights(tmp_path / "whole", tmp_path / "out")


@pytest.mark.parametrize(("before", "after"), [("optimizer.groups=[]", GROUPS), (GROUPS, "optimizer.groups=[]")])
def test_moments_stay_with_their_parameters_when_the_groups_change(tmp_path, before, after):
    """Groups that change no value change no number, so that a run is the same whichever it had, and when.

    Without clipping: the norm of all gradients is rounded by the order in which they are summed."""
    same = {GROUPS: "optimizer.groups=[{match: 'head.*'}, {max_dim: 1}]"}
    before, after = same.get(before, before), same.get(after, after)
    made = arguments(tmp_path, "trainer.gradient_clip=null")
    train([*made, after, "trainer.max_steps=4", f"out={tmp_path / 'whole'}"])
    train([*made, before, "trainer.max_steps=2", f"out={tmp_path / 'out'}"])
    train([f"resume={tmp_path / 'out/checkpoints/last.ckpt'}", "trainer.max_steps=4", after])
    assert_same_weights(tmp_path / "whole", tmp_path / "out")


def test_multiflow_takes_no_groups(tmp_path):
    module = tiny_module(optimizer={"groups": [{"max_dim": 1}]})
    with pytest.raises(UserError, match=r"optimizer\.groups: Multiflow has none"):
        multiflow.export(module, tmp_path, module.configure_optimizers())
