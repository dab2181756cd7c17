"""Checkpoints of models with a language model: its name and hash are in them, its weights are not."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import infer
from app.errors import UserError
from app.training.checkpoint import load_module
from app.training.run import train
from tests.factories import noisy_batch, results, tiny_module
from tests.model.esm.made_esm import write_esm
from tests.training import runs
from tests.training.runs import MODEL, arguments
from tests.training.test_checkpoint import ours


@pytest.fixture
def esm(tmp_path):
    return write_esm(tmp_path / "esm")


def module(esm):
    return tiny_module(model={**tiny_module().recipe.model_dump(mode="json")["model"],
                              "esm": {"kind": "esm2", "name": str(esm)}})  # fmt: skip


def test_they_come_back_as_they_were(esm, tmp_path):
    saved, batch = module(esm), noisy_batch()
    with torch.no_grad():
        expected = saved.model(batch)
        loaded = load_module(ours(tmp_path / "a.ckpt", saved))
        found = loaded.model(batch)
    for name, value in results(expected).items():
        assert torch.equal(results(found)[name], value)
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["trunkline"]["esm"] == {"name": str(esm), "sha256": saved.model.esm.identity()["sha256"]}
    assert not any("encoder" in name or "word_embeddings" in name for name in content["state_dict"])


def test_the_hash_is_known_before_the_first_call(esm, tmp_path):
    language = load_module(ours(tmp_path / "a.ckpt", saved := module(esm))).model.esm.language
    language.check(torch.device("cpu"))
    assert language.identity() == saved.model.esm.identity()
    assert language._loaded is None


def test_other_weights_in_the_folder_are_refused(esm, tmp_path):
    path = ours(tmp_path / "a.ckpt", module(esm))
    write_esm(esm, seed=1)
    for use in (lambda m: m.model.esm.check(torch.device("cpu")), lambda m: m.model(noisy_batch())):
        with pytest.raises(
            UserError, match=r"a\.ckpt: trained with.*sha256 \w{16},.*model\.esm\.name=.* is \w{16} now"
        ):
            use(load_module(path))


def test_resuming_looks_too(esm):
    saved, checkpoint = module(esm), {"loops": {}}
    saved.on_save_checkpoint(checkpoint)
    write_esm(esm, seed=1)
    other = module(esm)
    other.model.esm.check(torch.device("cpu"))
    with pytest.raises(UserError, match=f"the checkpoint: trained with the language model {esm}"):
        other.on_load_checkpoint(checkpoint)


def test_a_checkpoint_that_does_not_say_is_damaged(esm, tmp_path):
    recipe = module(esm).recipe.model_dump(mode="json")
    about = {"format": 1, "version": "0", "recipe": recipe}
    with pytest.raises(UserError, match=r"a\.ckpt: damaged.*which language model"):
        load_module(ours(tmp_path / "a.ckpt", module(esm), trunkline=about))


def test_a_checkpoint_opens_without_it_and_a_folder_that_has_gone_is_named_when_needed(esm, tmp_path):
    path = ours(tmp_path / "a.ckpt", module(esm))
    esm.rename(tmp_path / "moved")
    loaded = load_module(path)
    for use in (lambda: loaded.model.esm.check(torch.device("cpu")), lambda: loaded.model(noisy_batch())):
        with pytest.raises(UserError, match=r"model\.esm\.name=.*neither a folder.*in infer\.py by esm\.name=FOLDER"):
            use()


# In runs: where the language model is may be said anew, what it is may not


def run(tmp_path, esm, *more: str) -> list[str]:
    return arguments(tmp_path, "model/esm=node", f"model.esm.name={esm}", "trainer.max_steps=1", *more)


@pytest.mark.slow
def test_a_run_is_told_its_language_model_and_goes_on_where_that_has_moved(esm, tmp_path, capsys):
    out = tmp_path / "out"
    train(run(tmp_path, esm, f"out={out}"))
    assert f"language model {esm}, frozen, sha256 " in capsys.readouterr().out
    moved = esm.rename(tmp_path / "moved, [here]")
    last = out / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match=r"model\.esm\.name=.*neither a folder"):
        train([f"resume={last}", "trainer.max_steps=2"])
    train([f"resume={last}", "trainer.max_steps=2", f"model.esm.name={moved}"])
    assert load_module(last).recipe.model.esm["name"] == str(moved)
    start = arguments(tmp_path, f"weights={last}", "trainer.max_steps=1")[len(MODEL) :]
    train([*start, f"out={tmp_path / 'warm'}"])
    again = moved.rename(tmp_path / "again")
    train([*start, f"model.esm.name={again}", f"out={tmp_path / 'warmer'}"])
    assert load_module(tmp_path / "warmer/checkpoints/last.ckpt").recipe.model.esm["name"] == str(again)
    again.rename(moved)
    assert infer.main([f"ckpt={last}", "lengths=[8]", "steps=3", "device=cpu", f"out={tmp_path / 'designs'}"]) == 0


def test_a_run_does_not_begin_with_weights_that_do_not_fit(esm, tmp_path, capsys):
    weights = load_file(esm / "model.safetensors")
    del weights["esm.encoder.layer.1.output.dense.bias"]
    save_file(weights, esm / "model.safetensors")
    with pytest.raises(UserError, match=r"^model\.esm\.name=.*: its weights lack encoder\.layer\.1\."):
        train(run(tmp_path, esm, f"out={tmp_path / 'out'}"))
    assert capsys.readouterr().out == "" and not (tmp_path / "out").exists()


def test_infer_finds_it_where_it_is_told_and_refuses_another(esm, tmp_path):
    train(run(tmp_path, esm, f"out={tmp_path / 'out'}"))
    moved = esm.rename(tmp_path / "moved")
    ask = [f"ckpt={tmp_path / 'out/checkpoints/last.ckpt'}", "lengths=[8]", "steps=3", "device=cpu"]
    with pytest.raises(UserError, match=r"model\.esm\.name=.*neither a folder"):
        infer.main([*ask, f"out={tmp_path / 'a'}"])
    designs = [f"out={tmp_path / 'b'}", f"esm.name={moved}", "esm.backend=transformers"]
    assert infer.main([*ask, *designs]) == 0
    write_esm(moved, seed=5)
    with pytest.raises(UserError, match=r"trained with the language model"):
        infer.main([*ask, f"esm.name={moved}", f"out={tmp_path / 'c'}"])
    write_esm(moved, layers=3)
    with pytest.raises(UserError, match=r"has 3 layers of width 16, .*last\.ckpt was trained with a .* of 2 "):
        infer.main([*ask, f"esm.name={moved}", f"out={tmp_path / 'c'}"])
    assert not (tmp_path / "c").exists()


def test_weights_start_a_run_with_another_language_model_or_none(esm, tmp_path, capsys):
    """What was learnt on the one of then is left; its folder need not be there any more."""
    train(run(tmp_path, esm, f"out={tmp_path / 'out'}"))
    start = f"weights={tmp_path / 'out/checkpoints/last.ckpt'}"
    shutil.rmtree(esm)
    other = write_esm(tmp_path / "other", seed=7)
    still = ["optimizer.lr=1e-12", "optimizer.weight_decay=0"]
    capsys.readouterr()
    train(run(tmp_path, other, start, *still, f"out={tmp_path / 'a'}"))
    assert f"  not taken: esm: learnt on another language model, {esm}\n" in capsys.readouterr().out
    train(arguments(tmp_path, start, *still, "trainer.max_steps=1", f"out={tmp_path / 'b'}"))
    assert "  not taken: esm: this model has nothing of its kind" in capsys.readouterr().out
    first = runs.average(tmp_path / "out")
    for out in ("a", "b"):
        for name, tensor in runs.weights(tmp_path / out).items():
            if ".esm." not in name:
                torch.testing.assert_close(tensor, first[name], atol=1e-9, rtol=0)


def test_resuming_with_another_is_told_before_the_run_begins(esm, tmp_path, capsys):
    out = tmp_path / "out"
    train(run(tmp_path, esm, f"out={out}"))
    write_esm(esm, seed=1)
    capsys.readouterr()
    with pytest.raises(UserError, match=r"last\.ckpt: trained with the language model"):
        train([f"resume={out / 'checkpoints/last.ckpt'}", "trainer.max_steps=2"])
    assert not capsys.readouterr().out


def test_a_language_model_for_a_model_without_is_refused(tmp_path):
    path = ours(tmp_path / "a.ckpt", tiny_module())
    for typed, told in (("precision=bf16", r"model\.esm\.precision='bf16': wanted"), ("name=null", r"name=null: give")):
        with pytest.raises(UserError, match=told):
            train([f"weights={path}", f"model.esm.{typed}", "trainer=cpu", f"out={tmp_path / 'a'}"])
    for refused in (
        lambda: train([f"resume={path}", "model.esm.name=esm2_8m", "trainer=cpu", f"out={tmp_path / 'a'}"]),
        lambda: infer.main([f"ckpt={path}", "lengths=[8]", "esm.name=esm2_8m", f"out={tmp_path / 'a'}"]),
        lambda: train([f"weights={path}", "model.esm.name=esm2_8m", "trainer=cpu", f"out={tmp_path / 'a'}"]),
    ):
        with pytest.raises(UserError, match=r"esm\.name has no effect: this checkpoint's model has no language model"):
            refused()
