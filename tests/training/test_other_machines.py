"""Checkpoints of other machines: what they say of kernels, compiler and environment concerns resumed runs alone."""

from pathlib import Path

import pytest
import torch
import yaml

import infer
from app.errors import UserError
from app.legacy import multiflow
from app.ops import select
from app.training.checkpoint import load_module, open_checkpoint
from app.training.recipe import OF_THE_MACHINE
from app.training.run import train
from tests.factories import tiny_module
from tests.training import runs
from tests.training.runs import arguments

UNKNOWN = "kernels.triangle_attention='other': wanted 'auto', "
ALIEN = {
    "a backend": ({"kernels": {"triangle_attention": "other", "self_attention": "reference"}}, UNKNOWN, "kernels=auto"),
    "an operation": ({"kernels": {"new_attention": "torch"}}, "kernels.new_attention is unknown", "kernels=auto"),
    "no section": ({"kernels": "fast"}, "kernels='fast': wanted a section", "kernels=auto"),
    "nothing": ({"kernels": None}, "kernels=None: wanted a section", "kernels=auto"),
    "a compiler": ({"compile": "other"}, "compile='other': wanted ", "compile=false"),
    "its settings": ({"compile": {"mode": "max-autotune"}}, "compile=", "compile=false"),
}
every_alien = pytest.mark.parametrize("kind", ALIEN)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The newest checkpoint of a run of one step, for which two backends were chosen."""
    folder = tmp_path_factory.mktemp("run")
    typed = ("kernels.invariant_point_attention=reference", "kernels.self_attention=torch")
    train(arguments(folder, "trainer.max_steps=1", *typed, f"out={folder / 'out'}"))
    return folder / "out/checkpoints/last.ckpt"


def changed(finished: Path, path: Path, **sections) -> Path:
    """A copy whose recipe says something else in these sections."""
    saved = torch.load(finished, weights_only=True)
    saved["trunkline"]["recipe"] |= sections
    torch.save(saved, path)
    return path


def saved_recipe(out: Path) -> dict:
    return runs.checkpoint(out)["trunkline"]["recipe"]


@every_alien
def test_who_wants_the_model_alone_has_it(finished, tmp_path, kind):
    path = changed(finished, tmp_path / "a.ckpt", **ALIEN[kind][0], environment={"variables": {"OTHER": 1}})
    module, same = load_module(path), load_module(finished)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), same.parameters(), strict=True))
    assert module.recipe == same.recipe
    designs = [f"ckpt={path}", f"out={tmp_path / 'designs'}", "device=cpu", "steps=2", "lengths=5"]
    assert infer.main([*designs, "progress_bar=false"]) == 0


def test_a_new_run_from_its_weights_has_kernels_of_its_own(finished, tmp_path):
    path = changed(finished, tmp_path / "a.ckpt", **ALIEN["a backend"][0], compile="other")
    out, limits = tmp_path / "out", ("trainer=cpu", "trainer.max_steps=1")
    train([f"weights={path}", *runs.data(tmp_path), *limits, "kernels.self_attention=torch", f"out={out}"])
    recipe = saved_recipe(out)
    assert recipe["kernels"] == dict.fromkeys(recipe["kernels"], "auto") | {"self_attention": "torch"}
    assert recipe["compile"] is False


def test_multiflows_format_is_written_from_it(tmp_path):
    saved = {"state_dict": (module := tiny_module()).state_dict(), "epoch": 3, "global_step": 40}
    module.on_save_checkpoint(saved)
    torch.save(saved, tmp_path / "ours.ckpt")
    path = changed(tmp_path / "ours.ckpt", tmp_path / "a.ckpt", **ALIEN["a backend"][0])
    assert multiflow.load(multiflow.export(load_module(path), tmp_path / "legacy")).global_step == 40


@every_alien
def test_a_resumed_run_is_told_the_cure_and_goes_on_by_it(finished, tmp_path, capsys, kind):
    sections, said, cure = ALIEN[kind]
    path, out = changed(finished, tmp_path / "a.ckpt", **sections), tmp_path / "out"
    resume = [f"resume={path}", "trainer.max_steps=2", f"out={out}"]
    with pytest.raises(UserError) as error:
        train(resume)
    assert str(error.value).startswith(f"resume={path}: {said}") and "\n" not in str(error.value)
    assert str(error.value).endswith(f": {OF_THE_MACHINE[cure.partition('=')[0]]}") and not out.exists()
    assert OF_THE_MACHINE[cure.partition("=")[0]].startswith(f"{cure} ")

    capsys.readouterr()
    assert train([*resume, cure]) == 0
    assert f"  {cure.partition('=')[0]}" in capsys.readouterr().out  # old -> new
    recipe = saved_recipe(out)
    assert recipe["kernels"] == dict.fromkeys(recipe["kernels"], "auto") or "kernels" not in sections
    assert recipe["compile"] is False and runs.checkpoint(out)["global_step"] == 2


def test_a_backend_that_cannot_be_had_here_too(finished, tmp_path, capsys):
    kernels = open_checkpoint(finished).recipe["kernels"] | {"invariant_point_attention": "triton"}
    path, out = changed(finished, tmp_path / "a.ckpt", kernels=kernels), tmp_path / "out"
    resume = [f"resume={path}", "trainer.max_steps=2", f"out={out}", "trainer=cpu"]
    with pytest.raises(UserError, match=r"=triton: runs on .*: set kernels\.invariant_point_attention=auto"):
        train(resume)
    assert not out.exists()
    train([*resume, "kernels.invariant_point_attention=auto"])
    said = capsys.readouterr().out
    assert "kernels.invariant_point_attention: triton -> auto" in said and "kernels.self_attention" not in said
    assert saved_recipe(out)["kernels"] == kernels | {"invariant_point_attention": "auto"}


def test_what_was_typed_once_holds_when_the_run_goes_on(finished, tmp_path):
    out = tmp_path / "out"
    train([f"resume={finished}", "trainer.max_steps=2", f"out={out}", "compile=false"])
    kernels = saved_recipe(out)["kernels"]
    assert (kernels["invariant_point_attention"], kernels["self_attention"]) == ("reference", "torch")
    assert set(yaml.safe_load((out / "machine.yaml").read_text())["kernels"]["took"]["self_attention"]) == {"torch"}


def test_an_older_one_that_knows_fewer_operations_goes_on(finished, tmp_path):
    for name, kernels in {"few": {"self_attention": "reference"}, "none": {}}.items():
        path, out = changed(finished, tmp_path / "a.ckpt", kernels=kernels), tmp_path / name
        train([f"resume={path}", "trainer.max_steps=2", "kernels.edge_embedding=torch", f"out={out}"])
        auto = dict.fromkeys(select.OPERATIONS, "auto")
        assert saved_recipe(out)["kernels"] == auto | kernels | {"edge_embedding": "torch"}


def test_the_rest_of_a_recipe_is_held_to_as_before(finished, tmp_path):
    for sections, said in {
        "unknown": ({"kernel": {}}, r"its recipe is not valid: kernel is unknown: did you mean kernels\?"),
        "nested": ({"kernels": {"a": _nested(200)}}, r"its recipe is not valid: the recipe: nested"),
    }.values():
        path = changed(finished, tmp_path / "a.ckpt", **sections)
        for use in (load_module, open_checkpoint, lambda path: train([f"resume={path}", f"out={tmp_path / 'out'}"])):
            with pytest.raises(UserError, match=said):
                use(path)


def _nested(levels: int) -> dict:
    return {"a": _nested(levels - 1)} if levels else {}


def test_a_run_keeps_what_it_was_computed_with(finished):
    told = yaml.safe_load((finished.parents[1] / "machine.yaml").read_text())
    assert (told["device"], told["precision"]) == ("cpu", "32-true")
    assert told["versions"]["torch"] == torch.__version__ and told["environment"]["matmul_precision"] == "highest"
    assert told["kernels"]["took"]["invariant_point_attention"] == ["reference"]
    assert told["kernels"]["asked_for"]["edge_transition"] == "auto"


def test_a_key_of_a_section_that_is_none_is_told_the_cure(finished, tmp_path):
    path = changed(finished, tmp_path / "a.ckpt", kernels="fast")
    with pytest.raises(UserError, match=r"resume=.*a\.ckpt: .*kernels is a value.*: kernels=auto takes"):
        train([f"resume={path}", "trainer.max_steps=2", "kernels.self_attention=torch", f"out={tmp_path / 'out'}"])
