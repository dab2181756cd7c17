"""Checkpoints of models with a language model: its name and hash are in them, its weights are not."""

import pytest
import torch

from app.errors import UserError
from app.training.checkpoint import load_module
from tests.factories import noisy_batch, results, tiny_module
from tests.model.esm.made_esm import write_esm
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
    load_module(ours(tmp_path / "a.ckpt", module(esm))).model.esm.check(torch.device("cpu"))


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


def test_a_folder_that_has_gone_is_named(esm, tmp_path):
    path = ours(tmp_path / "a.ckpt", module(esm))
    esm.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"a\.ckpt.*model\.esm\.name=.*neither a folder"):
        load_module(path)
