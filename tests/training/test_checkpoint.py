"""Opening checkpoints: ours and Multiflow's, whole, damaged and hostile."""

import builtins
import os

import pytest
import torch

from app.errors import UserError
from app.training.checkpoint import load_module, open_checkpoint
from app.training.module import FORMAT
from app.training.run import train
from tests.factories import noisy_batch, results, tiny_module
from tests.training import runs


def ours(path, module=None, **changes):
    """A checkpoint as a run writes it, with `changes` to its top level."""
    module = module or tiny_module()
    saved = {"state_dict": module.state_dict(), "epoch": 3, "global_step": 40, "optimizer_states": [], "loops": {}}
    module.on_save_checkpoint(saved)
    torch.save(saved | changes, path)
    return path


def about(**changes):
    return {"format": FORMAT, "version": "0", "recipe": tiny_module().recipe.model_dump(mode="json")} | changes


def test_ours_comes_back_as_it_was(tmp_path):
    module = tiny_module()
    loaded = load_module(ours(tmp_path / "a b=c.ckpt", module))
    assert loaded.recipe == module.recipe and not loaded.training
    assert (loaded.restored_epoch, loaded.restored_step) == (3, 40)
    batch = noisy_batch()
    with torch.no_grad():
        for name, value in results(module.model(batch)).items():
            assert torch.equal(value, results(loaded.model(batch))[name])
    assert load_module(tmp_path / "a b=c.ckpt", torch.device("cpu")).device.type == "cpu"
    with pytest.raises(UserError, match="device=tpu is unknown"):
        load_module(tmp_path / "a b=c.ckpt", "tpu")


def test_it_needs_no_recipes(tmp_path, monkeypatch):
    monkeypatch.setattr("app.config.overrides.RECIPES", tmp_path / "gone")
    assert load_module(ours(tmp_path / "a.ckpt")).recipe.name == "tiny"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trunkline": about(format=FORMAT + 1, version="9.9")}, r"newer Trunkline \(9\.9; format 2.*upgrade"),
        ({"trunkline": None}, "damaged"),
        ({"trunkline": about(format="1")}, "damaged"),
        ({"trunkline": about(recipe=None)}, "its recipe is not valid"),
        ({"trunkline": about(recipe=[1])}, "its recipe is not valid"),
        (
            {"trunkline": about(recipe=about()["recipe"] | {"_target_": "os.system"})},
            "its recipe is not valid.*_target_",
        ),
        (
            {"trunkline": about(recipe=about()["recipe"] | {"model": {"_target_": "os.system"}})},
            "recipe is not valid.*model",
        ),
        ({"state_dict": None}, "damaged"),
        ({"epoch": None}, "damaged"),
        ({"global_step": "many"}, "damaged"),
    ],
)
def test_damaged_ones_are_refused(tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as error:
        load_module(ours(tmp_path / "a.ckpt", **changes))
    assert str(tmp_path / "a.ckpt") in str(error.value) and "\n" not in str(error.value)


def test_all_parameters_that_do_not_fit_are_listed(tmp_path):
    state = tiny_module().state_dict()
    gone, short, odd, *_ = state
    del state[gone]
    state[short] = state[short].flatten()[1:]
    state[odd] = "no tensor"
    state["model.extra"] = torch.zeros(1)
    with pytest.raises(UserError) as error:
        load_module(ours(tmp_path / "a.ckpt", state_dict=state))
    for said in (f"missing {gone}", f"{short} has shape", f"missing {odd}", "unexpected model.extra"):
        assert said in str(error.value)


def test_files_that_are_no_checkpoints(tmp_path):
    whole = ours(tmp_path / "whole.ckpt").read_bytes()
    for content in (b"", b"garbage" * 99, whole[:100], whole[: len(whole) // 2], whole[:-30]):
        (tmp_path / "a.ckpt").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.ckpt: (cannot be read|refused|damaged)"):
            load_module(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="no such checkpoint file"):
        load_module(tmp_path / "none.ckpt")
    with pytest.raises(UserError, match="is a folder: give the checkpoint in it"):
        load_module(tmp_path)
    torch.save([1], tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="holds a list, not a checkpoint"):
        load_module(tmp_path / "a.ckpt")
    torch.save({"weights": {}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="neither a Trunkline nor a Multiflow checkpoint, it holds weights"):
        load_module(tmp_path / "a.ckpt")


class Runs:
    """Pickled, a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Hidden(dict):
    """A subclass of a container: unpickling it would import this module."""


@pytest.mark.parametrize("place", ["trunkline", "hyper_parameters", "callbacks", "state_dict"])
@pytest.mark.parametrize("what", ["system", "eval", "subclass"])
def test_hostile_ones_are_refused_and_nothing_is_run(tmp_path, place, what):
    trace = tmp_path / "trace"
    hostile = {
        "system": Runs(os.system, f"touch {trace}"),
        "eval": Runs(builtins.eval, f"open({str(trace)!r}, 'w')"),
        "subclass": Hidden(a=1),
    }[what]
    path = ours(tmp_path / "a.ckpt", **{place: {"cfg": hostile}})
    with pytest.raises(UserError, match=r"a\.ckpt: refused, it names .*nothing was run"):
        load_module(path)
    with pytest.raises(UserError, match="refused"):
        train([f"resume={path}", f"out={tmp_path / 'out'}"])
    assert not trace.exists() and not (tmp_path / "out").exists()


def test_multiflows(shared):
    opened = open_checkpoint(shared / "legacy_multiflow" / "last.ckpt")
    assert not opened.ours and (opened.epoch, opened.step) == (1, 6)
    assert opened.recipe["name"] == "multiflow_legacy"
    assert not load_module(shared / "legacy_multiflow" / "last.ckpt").training


def test_resuming_multiflows(shared, tmp_path, capsys):
    """Moments, epoch and step go on; what is written is ours, and can be resumed again."""
    from app.legacy import multiflow

    path, out = shared / "legacy_multiflow" / "last.ckpt", tmp_path / "out"
    with pytest.raises(UserError, match="not in the folder of a run: say with out=FOLDER"):
        train([f"resume={path}", *runs.data(tmp_path)])
    with pytest.raises(UserError, match=r"data\.path is missing"):
        train([f"resume={path}", "data.loader.num_workers=0", f"out={out}"])
    with pytest.raises(UserError, match=r"model\.c_s=\d+ contradicts the checkpoint, which has"):
        train([f"resume={path}", "model.c_s=512", *runs.data(tmp_path), f"out={out}"])

    slow = ("optimizer.lr=1e-12", "optimizer.weight_decay=0", "optimizer.betas=[0.999999,0.999999]")
    limits = ("trainer=cpu", "trainer.max_steps=8", "trainer.checkpoint_every=1", "trainer.gradient_clip=0.1")
    train([f"resume={path}", *runs.data(tmp_path), *limits, *slow, f"out={out}"])
    assert "optimizer.lr: 0.0001 -> 1e-12" in capsys.readouterr().out
    original, saved = multiflow.load(path), runs.checkpoint(out)
    assert (saved["epoch"], saved["global_step"]) == (1, 8)
    assert load_module(out / "checkpoints" / "last.ckpt").recipe.model == original.module.recipe.model
    for name, tensor in original.module.state_dict().items():
        torch.testing.assert_close(saved["state_dict"][name], tensor, rtol=0, atol=1e-6)
    state = saved["optimizer_states"][0]["state"]
    assert len(state) == len(original.optimizer_state["state"])
    for index, moments in original.optimizer_state["state"].items():
        assert state[index]["step"] == moments["step"] + 2
        torch.testing.assert_close(state[index]["exp_avg"], moments["exp_avg"], rtol=1e-4, atol=1e-6)


def test_a_run_resumed_from_multiflows_goes_on_exactly_too(shared, tmp_path):
    start = [f"resume={shared}/legacy_multiflow/last.ckpt", *runs.data(tmp_path), "trainer=cpu", "trainer.log_every=2"]
    train([*start, "trainer.max_steps=15", f"out={tmp_path / 'whole'}"])
    train([*start, "trainer.max_steps=9", f"out={tmp_path / 'out'}"])
    train([f"resume={tmp_path}/out/checkpoints/last.ckpt", "trainer.max_steps=15"])
    runs.assert_same_weights(tmp_path / "whole", tmp_path / "out")
    assert runs.rows(tmp_path / "whole") == runs.rows(tmp_path / "out")
    assert [row["epoch"] for row in runs.rows(tmp_path / "out")] == [
        "1",
        "1",
        "2",
        "2",
        "3",
    ]  # accumulate=2, as its config says


def test_weights_bring_their_model_along_where_none_is_typed(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = [f"weights={shared}/legacy_multiflow/last.ckpt", *runs.data(tmp_path), "trainer=cpu", "trainer.max_steps=1"]
    train([*start, "loss.token_weight=0.5", "sampler=euler", f"out={tmp_path / 'out'}"])
    original, tuned = (
        open_checkpoint(path).recipe for path in (start[0].removeprefix("weights="), "out/checkpoints/last.ckpt")
    )
    assert tuned["model"] == original["model"]
    assert tuned["flow"] == original["flow"]
    assert tuned["loss"] == original["loss"] | {"token_weight": 0.5}
    assert tuned["sampler"]["name"] == "euler"


def test_weights_of_multiflows(shared, tmp_path):
    path = shared / "legacy_multiflow" / "last.ckpt"
    model = open_checkpoint(path).recipe["model"]
    (stage,) = model["trunk"].pop("stages")
    typed = [f"model.trunk.stages.0.{key}={value}" for key, value in stage.items() if key != "block"]
    typed += [f"model.{key}={value}" for key, value in model.items() if not isinstance(value, dict)]
    typed += [f"model.{part}.{key}={v}" for part in ("node_embed", "edge_embed") for key, v in model[part].items()]
    start = ["recipe=multiflow_legacy", f"weights={path}", *runs.data(tmp_path), "trainer=cpu", "trainer.max_steps=1"]
    train([*start, *typed, f"out={tmp_path / 'out'}"])
    assert runs.checkpoint(tmp_path / "out")["global_step"] == 1
    with pytest.raises(UserError, match=r"nothing of it fits the model of recipe \w+: node_embed: "):
        train([*start, f"out={tmp_path / 'other'}"])


def test_a_recipe_that_asks_for_more_memory_than_its_weights_is_refused_before_it_is_taken(tmp_path):
    module = tiny_module()
    path = ours(tmp_path / "a.ckpt", module)
    saved = torch.load(path, weights_only=True)
    saved["trunkline"]["recipe"]["model"]["c_s"] = 10**6
    torch.save(saved, path)
    with pytest.raises(UserError, match=r"a\.ckpt: damaged, its parameters do not fit.*, expected \[.*1000000"):
        open_checkpoint(path)


def test_weights_that_are_not_finite_start_no_run(tmp_path):
    module = tiny_module()
    with torch.no_grad():
        module.model.head.layers[0].weight[0, 0] = torch.nan
    path = ours(tmp_path / "a.ckpt", module)
    with pytest.raises(UserError, match=r"weights=.*a\.ckpt: its weights are not all finite"):
        train([f"weights={path}", "trainer=cpu", f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_recipe_nested_without_end_is_refused(tmp_path):
    stages = [{"block": "ipa"}]
    for _ in range(200):
        stages = [{"repeat": 1, "stages": stages}]
    many = {"a": 1}
    for _ in range(30):
        many = {"a": many, "b": many}
    for changes in ({"model": {"trunk": {"stages": stages}}}, {"data": many}):
        recipe = tiny_module().recipe.model_dump(mode="json") | changes
        with pytest.raises(UserError, match=r"a\.ckpt: its recipe is not valid: the recipe: nested"):
            load_module(ours(tmp_path / "a.ckpt", trunkline=about(recipe=recipe)))
