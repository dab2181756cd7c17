"""The moving average of the weights: its values, its place in checkpoints, and who reads it."""

import copy
import json

import lightning
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from app import environment
from app.cli.infer import infer
from app.errors import UserError
from app.training.checkpoint import load_module, open_checkpoint
from app.training.ema import KEY, Ema
from app.training.run import train
from tests.factories import perturb, tiny_module, tiny_recipe
from tests.training import runs
from tests.training.runs import arguments, assert_same_weights, average, weights


class Toy(lightning.LightningModule):
    """One parameter that gains 1 in each step; what it is in validation is kept."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, dtype=dtype))
        self.seen, self.after = [], []

    def training_step(self, batch, batch_idx):
        return -self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.seen.append(self.weight.detach().clone())

    def on_train_batch_start(self, batch, batch_idx):
        self.after.append(self.weight.detach().clone())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def run(module, ema, steps, tmp_path, **more):
    data = torch.utils.data.DataLoader(torch.zeros(100, 1))
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    options |= {"limit_val_batches": 1, "enable_model_summary": False, "default_root_dir": tmp_path, **more}
    trainer = lightning.Trainer(callbacks=[ema], max_steps=steps, **options)
    trainer.fit(module, data, data)
    return trainer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_what_its_formula_says_in_float32(tmp_path, dtype):
    ema = Ema(0.25)
    run(Toy(dtype), ema, 6, tmp_path)
    expected = 0.0
    for step in range(1, 7):
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    found = ema._average["weight"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full((3,), expected))


def test_accumulated_batches_are_one_step(tmp_path):
    ema = Ema(0.9)
    run(Toy(), ema, 3, tmp_path, accumulate_grad_batches=4)
    assert ema.updates == 3


def test_validation_sees_the_average_and_training_goes_on_from_the_weights(tmp_path):
    module, ema = Toy(), Ema(0.5)
    run(module, ema, 4, tmp_path, val_check_interval=2, num_sanity_val_steps=1)
    assert [tensor[0].item() for tensor in module.after] == [0, 1, 2, 3]
    first, second = 1 * 9 / 11, None  # decay is 2/11 after the first step, 3/12 after the second
    second = first / 4 + 2 * 3 / 4
    assert module.seen[0][0].item() == 0  # Lightning's own check before training
    assert module.seen[1][0].item() == pytest.approx(second)
    assert module.weight[0].item() == 4


def test_it_stands_in_for_a_while_and_leaves_the_weights_as_they_were(tmp_path):
    module, ema = Toy(), Ema(0.5)
    run(module, ema, 3, tmp_path, limit_val_batches=0)
    before, mean = module.weight.detach().clone(), ema._average["weight"].clone()
    with pytest.raises(ZeroDivisionError), ema.in_place(module):
        with ema.in_place(module):
            assert torch.equal(module.weight, mean)
        assert torch.equal(module.weight, mean)
        raise ZeroDivisionError
    assert torch.equal(module.weight, before) and torch.equal(ema._average["weight"], mean)


def test_sharded_parameters_are_averaged_as_they_lie_and_stored_whole(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        module = perturb(torch.nn.Linear(4, 6))
        plain = copy.deepcopy(module)
        for name, layout in (("weight", Shard(0)), ("bias", Replicate())):
            sharded = distribute_tensor(getattr(module, name).detach(), mesh, [layout])
            setattr(module, name, torch.nn.Parameter(sharded))
        stage = type("Stage", (), {"global_step": 0})()
        stored, before = [], dict(plain.named_parameters())
        for trained in (module, plain):
            ema = Ema(0.9)
            ema.on_load_checkpoint(stage, trained, {KEY: {name: torch.ones_like(p) for name, p in before.items()}})
            stage.global_step = 0
            ema.on_train_start(stage, trained)
            stage.global_step = 1
            ema.on_train_batch_end(stage, trained, {})
            assert isinstance(ema._average["weight"], DTensor) == (trained is module)
            ema.on_save_checkpoint(stage, trained, saved := {})
            stored.append(saved[KEY])
        assert not [type(value) for value in stored[0].values() if isinstance(value, DTensor)]
        assert all(torch.equal(stored[0][name], stored[1][name]) for name in stored[1])
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of 4 steps that keeps an average."""
    folder = tmp_path_factory.mktemp("finished")
    train(arguments(folder, "ema.decay=0.9", "trainer.max_steps=4", f"out={folder / 'out'}"))
    return folder / "out"


def last(out):
    return out / "checkpoints" / "last.ckpt"


def test_a_checkpoint_has_both_under_the_same_names(finished):
    trained, averaged = weights(finished), average(finished)
    assert list(averaged) == list(trained)
    assert all(tensor.dtype == torch.float32 for tensor in averaged.values())
    assert any(not torch.equal(tensor, trained[name]) for name, tensor in averaged.items())


@pytest.mark.parametrize(("use_ema", "kind"), [("auto", average), (True, average), (False, weights)])
def test_who_loads_a_model_gets_the_average_unless_it_is_declined(finished, use_ema, kind):
    found = load_module(last(finished), use_ema=use_ema).state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in kind(finished).items())


@pytest.mark.parametrize(("typed", "used"), [([], True), (["use_ema=true"], True), (["use_ema=false"], False)])
def test_designs_are_made_with_the_average_and_the_manifest_tells(finished, tmp_path, capsys, typed, used):
    settings = environment.EnvironmentSettings()
    request = [f"ckpt={last(finished)}", "lengths=[6]", "steps=2", "device=cpu", "progress_bar=false"]
    assert infer([*request, *typed, f"out={tmp_path / 'out'}"], settings) == 0
    assert json.loads((tmp_path / "out/manifest.json").read_text())["settings"]["use_ema"] is used
    assert ("with the moving average of the weights" in capsys.readouterr().out) is used
    expected = load_module(last(finished), use_ema=used).sample(lengths=[6], steps=2, seed=[design_seed(tmp_path)])
    text = next((tmp_path / "out/structures").iterdir()).read_text()
    x, y, z = expected.final_atom37[0, 0, 1].tolist()
    assert f"{x:8.3f}{y:8.3f}{z:8.3f}" in text


def design_seed(tmp_path):
    return json.loads((tmp_path / "out/manifest.json").read_text())["designs"][0]["seed"]


@pytest.mark.slow
def test_a_warm_start_takes_the_average_unless_it_is_declined(finished, tmp_path):
    still = ("optimizer.lr=1e-12", "optimizer.weight_decay=0", "trainer.max_steps=1", f"weights={last(finished)}")
    for typed, kind in (("use_ema=auto", average), ("use_ema=false", weights)):
        out = tmp_path / typed
        train(arguments(finished.parent, *still, typed, f"out={out}"))
        for name, tensor in kind(finished).items():
            torch.testing.assert_close(weights(out)[name], tensor, rtol=0, atol=1e-9)


def test_a_model_that_is_started_from_keeps_its_average(finished, tmp_path):
    """Where no recipe is typed, the default one's does not hold, which is Multiflow's."""
    data = [text for text in arguments(finished.parent) if text.startswith(("data", "trainer", "callbacks"))]
    start = [*data, f"weights={last(finished)}", "trainer.max_steps=1", f"out={tmp_path / 'out'}"]
    train(start)
    assert runs.checkpoint(tmp_path / "out")["trunkline"]["recipe"]["ema"] == {"decay": 0.9}


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_resumed_run_ends_with_the_same_average(tmp_path, accumulate):
    made = arguments(tmp_path, "ema.decay=0.8", f"trainer.accumulate={accumulate}")
    train([*made, "trainer.max_steps=6", f"out={tmp_path / 'whole'}"])
    out = tmp_path / "out"
    train([*made, "trainer.max_steps=2", f"out={out}"])
    for steps in (3, 6):
        train([f"resume={last(out)}", f"trainer.max_steps={steps}"])
    assert runs.checkpoint(out)["callbacks"]["ema"] == {"updates": 6}
    assert_same_weights(tmp_path / "whole", out)


@pytest.mark.slow
def test_an_average_begins_and_ends_when_it_is_typed(tmp_path):
    """A checkpoint without one, as of older versions, goes on without, or begins one with the weights that it has."""
    out = tmp_path / "out"
    train(arguments(tmp_path, "ema.decay=null", "trainer.max_steps=2", f"out={out}"))
    assert KEY not in runs.checkpoint(out) and not open_checkpoint(last(out)).ema
    train([f"resume={last(out)}", "trainer.max_steps=3"])
    assert KEY not in runs.checkpoint(out)
    before = weights(out)
    train([f"resume={last(out)}", "trainer.max_steps=4", "ema.decay=0.9"])
    decay = 2 / 11
    for name, tensor in average(out).items():
        torch.testing.assert_close(tensor, decay * before[name] + (1 - decay) * weights(out)[name])
    train([f"resume={last(out)}", "trainer.max_steps=5", "ema.decay=null"])
    assert KEY not in runs.checkpoint(out)


def test_recipes_keep_one_but_multiflows():
    from app.config.compose import compose, options

    kept = {name: compose("train", [f"recipe={name}"])["ema"]["decay"] for name in options()["recipe"]}
    assert kept.pop("multiflow_legacy") is None
    assert set(kept.values()) == {0.999}


def test_a_recipe_from_before_has_none():
    assert tiny_module().recipe.ema.decay is None and "ema" not in tiny_recipe()


def test_mistakes_are_told(finished, tmp_path):
    saved = runs.checkpoint(finished)
    name = next(iter(saved[KEY]))
    for damage, said in (
        (saved[KEY] | {name: torch.zeros(1)}, f"averaged parameters do not fit .*{name} has shape"),
        ({"other": torch.zeros(1)}, "averaged parameters do not fit"),
        ("text", "averaged parameters do not fit"),
    ):
        torch.save(saved | {KEY: damage}, tmp_path / "a.ckpt")
        with pytest.raises(UserError, match=rf"a\.ckpt: damaged, its {said}"):
            load_module(tmp_path / "a.ckpt")
    torch.save(saved | {KEY: saved[KEY] | {name: saved[KEY][name] * float("nan")}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="not all finite"):
        train([f"resume={tmp_path / 'a.ckpt'}", f"out={tmp_path / 'out'}"])
    torch.save({key: value for key, value in saved.items() if key != KEY}, tmp_path / "b.ckpt")
    with pytest.raises(UserError, match=r"use_ema=true: .*b\.ckpt has no moving average"):
        load_module(tmp_path / "b.ckpt", use_ema=True)
    for typed, said in (("use_ema=maybe", "use_ema"), ("ema.decay=1", r"ema\.decay=1"), ("use_ema=false", "without w")):
        weights_too = [f"weights={tmp_path / 'b.ckpt'}"] * (typed == "use_ema=maybe")
        with pytest.raises(UserError, match=said):
            train(arguments(finished.parent, typed, *weights_too, f"out={tmp_path / 'out'}"))
    with pytest.raises(UserError, match="use_ema has no effect"):
        train([f"resume={last(finished)}", "use_ema=false"])
