"""Where a language model comes from, what is refused, and its hash."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import UserError
from app.model.esm.folder import find, sha256, size_of
from app.model.esm.settings import PUBLISHED, EsmSize
from tests.model.esm.made_esm import write_esm


@pytest.fixture
def folder(esm, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(esm, tmp_path / "esm")


def changed(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def refused(folder) -> str:
    with pytest.raises(UserError) as caught:
        find(str(folder)).weights()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_hubs_cache(monkeypatch, cache, name: str, folder=None) -> None:
    """The hub cannot be reached; its cache holds the folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    if folder is not None:
        kept = cache / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, kept / "snapshots" / "abc")
        (kept / "refs").mkdir()
        (kept / "refs" / "main").write_text("abc")


def test_dimensions_are_known_without_weights(esm, folder):
    assert size_of(str(esm)) == EsmSize(3, 32, 4)
    assert size_of("esm2_650m") == size_of("facebook/esm2_t33_650M_UR50D") == (33, 1280, 20)
    for hub_name, (layers, width, heads) in PUBLISHED.values():
        assert f"_t{layers}_" in hub_name and width % heads == 0
    (folder / "model.safetensors").unlink()
    assert size_of(str(folder)) == EsmSize(3, 32, 4)


def test_published_ones_come_from_the_hubs_cache_offline(monkeypatch, tmp_path):
    small = write_esm(tmp_path / "small", layers=6, width=320, heads=20)
    in_hubs_cache(monkeypatch, tmp_path / "cache", PUBLISHED["esm2_8m"][0], small)
    for name in ("esm2_8m", "facebook/esm2_t6_8M_UR50D"):
        assert find(name).config.size == (6, 320, 20)
        assert sha256(find(name).weights()) == sha256(find(str(small)).weights())


def test_published_ones_that_cannot_be_had(monkeypatch, tmp_path, esm):
    in_hubs_cache(monkeypatch, tmp_path / "cache", PUBLISHED["esm2_8m"][0], esm)
    with pytest.raises(UserError, match=r"esm2_8m: .* other dimensions"):
        find("esm2_8m")
    with pytest.raises(UserError, match=r"^model\.esm\.name=esm2_3b: .*cannot be fetched.*HF_HUB_OFFLINE") as caught:
        find("esm2_3b")
    assert "\n" not in str(caught.value)


def test_unknown_names_and_other_folders_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"model\.esm\.name=esm2_8n: neither a folder.*did you mean esm2_8m"):
        size_of("esm2_8n")
    assert "no config.json" in refused(tmp_path)
    assert "not an ESM-2 model" in refused(changed(folder, model_type="bert"))
    assert "not an ESM-2 model" in refused(changed(folder, model_type="esm", position_embedding_type="absolute"))
    assert "hidden_size" in refused(changed(folder, position_embedding_type="rotary", hidden_size="wide"))
    (folder / "config.json").write_text("{")
    assert "no config.json that can be read" in refused(folder)


def test_folders_that_are_not_whole_are_refused(folder):
    vocabulary = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(vocabulary + "more\n")
    assert "different numbers of tokens" in refused(folder)
    (folder / "vocab.txt").unlink()
    assert "no vocab.txt" in refused(folder)
    (folder / "vocab.txt").write_text(vocabulary)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors cannot be read" in refused(folder)
    (folder / "model.safetensors").unlink()
    assert "it holds no weights" in refused(folder)


def test_the_hash_does_not_depend_on_the_files_format(tmp_path, esm):
    expected = sha256(find(str(esm)).weights())
    same = {"layers": 3, "width": 32, "heads": 4}
    for name, how in {
        "bin": {"safe_serialization": False},
        "parts": {"max_shard_size": "20KB"},
        "bin_parts": {"max_shard_size": "20KB", "safe_serialization": False},
    }.items():
        made = write_esm(tmp_path / name, **same, **how)
        assert not (made / "model.safetensors").exists()
        assert ("parts" in name) == (len(list(made.iterdir())) > 4)
        assert sha256(find(str(made)).weights()) == expected
    assert sha256(find(str(write_esm(tmp_path / "other", **same, seed=1))).weights()) != expected


def test_the_hash_is_of_what_makes_representations(folder):
    expected = sha256(find(str(folder)).weights())
    file = folder / "model.safetensors"
    tensors = load_file(file)
    bare = {name.removeprefix("esm.").replace("LayerNorm.weight", "LayerNorm.gamma"): value
            for name, value in tensors.items()}  # fmt: skip
    rotary = "encoder.layer.0.attention.self.rotary_embeddings.inv_freq"
    bare |= {"embeddings.position_ids": torch.arange(3), "lm_head.bias": torch.ones(3), rotary: torch.ones(4)}
    save_file(bare, file)
    assert sha256(find(str(folder)).weights()) == expected
    for change in (lambda value: value + 1e-6, lambda value: value.half()):
        key = "encoder.layer.0.attention.self.query.bias"
        save_file(bare | {key: change(bare[key])}, file)
        assert sha256(find(str(folder)).weights()) != expected


def test_the_hash_is_of_names_types_and_shapes_too():
    """All of these hold the same bytes."""
    zeros = torch.zeros(2, 4, dtype=torch.float16)
    others = [{"b": zeros}, {"a": zeros.bfloat16()}, {"a": zeros.view(4, 2)}, {"a": zeros[0], "b": zeros[1]}]
    hashes = [sha256(weights) for weights in ({"a": zeros}, *others)]
    assert len(set(hashes)) == 5
    assert sha256({"a": zeros[0], "b": zeros[1] + 1}) == sha256({"b": zeros[1] + 1, "a": zeros[0]})
    assert sha256({"a": zeros[0], "b": zeros[1] + 1}) != sha256({"b": zeros[0], "a": zeros[1] + 1})


class Runs:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_nothing_in_a_folder_is_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"esm.encoder.x": Runs()}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin cannot be read" in refused(folder)
    code = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    (folder / "evil.py").write_text("import os; os.system('touch executed')")
    changed(folder, auto_map=code)
    assert find(str(folder)).config.size == (3, 32, 4)
    assert not (tmp_path / "executed").exists()


def test_parts_are_looked_for_in_the_folder_alone(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    index = {"weight_map": {"esm.encoder.x": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.safetensors cannot be read" in refused(folder)
