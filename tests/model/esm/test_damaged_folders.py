"""Folders of a language model that are damaged or made up: one line at the start, and no memory spent on them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import UserError
from app.model.esm import backends
from app.model.esm.language import LanguageModel
from app.model.esm.settings import EsmSettings

CPU = torch.device("cpu")
KEY = "esm.encoder.layer.1.output.dense.bias"


@pytest.fixture
def folder(esm, tmp_path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(esm, tmp_path / "esm")


def refused(folder: Path | str, backend: str = "transformers") -> str:
    """What a user is told when the model is built and looked at, before anything is run."""
    with pytest.raises(UserError) as caught:
        LanguageModel(EsmSettings(name=str(folder), backend=backend)).check(CPU)
    assert str(caught.value).startswith(f"model.esm.name={folder}: ") and "\n" not in str(caught.value)
    return str(caught.value)


def tensors(folder: Path) -> dict:
    return load_file(folder / "model.safetensors")


def pickled(folder: Path, content) -> Path:
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save(content, folder / "pytorch_model.bin")
    return folder


def listed(folder: Path, content) -> Path:
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder


def changed(folder: Path, **changes) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize("backend", ["faplm", "transformers"])
@pytest.mark.parametrize(
    "change", [lambda bias: {}, lambda bias: {KEY: bias[1:].clone()}], ids=["missing", "misshapen"]
)
def test_weights_that_do_not_fit_are_found_without_loading_any(folder, backend, change, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "to_empty", None)
    whole = tensors(folder)
    save_file(whole | change(whole.pop(KEY)), folder / "model.safetensors")
    assert "its weights lack encoder.layer.1.output.dense.bias [32]: fetch it again" in refused(folder, backend)


def test_what_fits_is_on_no_device(folder):
    language = LanguageModel(EsmSettings(name=str(folder), backend="transformers"))
    found, weights = language._found()
    model = backends.fitted("transformers", found, weights, CPU, torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert {name for name, _ in model.named_parameters()} == weights.keys()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", 3),
        ("num_attention_heads", 32),  # of width 1, which rotary positions cannot turn
        ("num_attention_heads", 1e9),
        ("num_hidden_layers", 1e10),
        ("hidden_size", 1e9),
        ("intermediate_size", 1e9),
        ("vocab_size", 1e9),
        ("pad_token_id", 33),
        ("pad_token_id", -1),
        ("layer_norm_eps", float("nan")),
    ],
)
def test_numbers_that_no_model_can_have(folder, key, value):
    said = refused(changed(folder, **{key: value}))
    assert f"config.json is not that of an ESM-2 model ({key}: " in said and "Value error" not in said


def test_json_without_end(folder):
    (folder / "config.json").write_text("[" * 100_000)
    assert "no config.json that can be read" in refused(folder)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {}}, "hold no layers of a language model"),
        ({}, "names no files of weights"),
        ({"weight_map": ["model-1.safetensors"]}, "names no files of weights"),
        ({"weight_map": {KEY: 3}}, "names no files of weights"),
        ({"weight_map": {KEY: ".."}}, "cannot be read"),
    ],
)
def test_lists_of_parts(folder, index, said):
    assert said in refused(listed(folder, index))


def test_weights_that_are_none(folder):
    save_file({"lm_head.bias": torch.ones(3)}, folder / "model.safetensors")
    assert "hold no layers of a language model: fetch it again" in refused(folder)


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), {3: torch.ones(2)}], ids=["list", "tensor", "int"])
def test_pickles_that_are_no_table_of_weights(folder, content):
    content = tensors(folder) | content if isinstance(content, dict) else content
    assert "pytorch_model.bin is no table of named weights: fetch it again" in refused(pickled(folder, content))


@pytest.mark.parametrize(
    "change",
    [
        lambda bias: 3,
        lambda bias: [1.0, 2.0],
        torch.Tensor.to_sparse,
        lambda bias: bias.to("meta"),
        lambda bias: torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8),
        lambda bias: torch.nested.nested_tensor([bias, bias[1:]]),
        lambda bias: torch.complex(bias, bias),
        torch.Tensor.long,
        torch._neg_view,
    ],
    ids=["number", "list", "sparse", "meta", "quantized", "nested", "complex", "integers", "negated"],
)
@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_no_plain_numbers(folder, change):
    whole = tensors(folder)
    said = refused(pickled(folder, whole | {KEY: change(whole[KEY])}))
    assert "plain floating-point numbers at encoder.layer.1.output.dense.bias" in said


@pytest.mark.parametrize("repeat", ["numbers", "tensors"])
def test_small_files_that_tell_of_large_weights(folder, repeat, monkeypatch):
    """Where each is copied, 2 ** 33 times one number takes 34 GB."""
    whole = tensors(folder)
    bias = whole[KEY]
    if repeat == "numbers":
        whole[KEY] = torch.zeros(1).expand(2**33)
    else:
        whole |= {name: bias for name, value in whole.items() if value.shape == bias.shape}
    monkeypatch.setattr(torch.Tensor, "contiguous", None)  # nothing is to be laid out before they are refused
    assert "its weights are views of fewer numbers than they have: fetch it again" in refused(pickled(folder, whole))


def test_views_and_parameters_are_weights(folder):
    """Rows of a larger tensor, another order in memory, and a table that the head shares."""
    whole = tensors(folder)
    expected = LanguageModel(EsmSettings(name=str(folder))).identity()
    table = "esm.embeddings.word_embeddings.weight"
    stored = {name: torch.cat([value, value])[: len(value)] for name, value in whole.items()}
    stored = {name: value.mT.clone().mT if value.dim() == 2 else value for name, value in stored.items()}
    stored = {name: torch.nn.Parameter(value) for name, value in stored.items()}
    pickled(folder, stored | {"lm_head.decoder.weight": stored[table]})
    language = LanguageModel(EsmSettings(name=str(folder), backend="transformers"))
    language.check(CPU)
    assert language.identity() == expected
    model = backends.build("transformers", *language._found(), CPU, torch.float32)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["~nosuchuser/x", "a" * 5000, "a\0b"], ids=["nobody's", "long", "null"])
def test_names_that_are_no_paths(name):
    assert "neither a folder that is there nor a published model" in refused(name)
