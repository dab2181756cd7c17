"""The plug-in, on tiny models in the hub's format: the judge is transformers' own way to run them."""

import json
import os
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.evaluation.refold.esmfold import GAP, LINKER, EsmFold
from tests.evaluation.refold.made_models import write_esmfold

CPU = torch.device("cpu")
FIRST, SECOND = ("ACDEFGHIKL",), ("LVWYMNPQRS",)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_esmfold(tmp_path_factory.mktemp("models") / "esmfold")


@pytest.fixture
def folder(made, tmp_path):
    """One to be changed."""
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def hugging_face(folder):
    from transformers import EsmForProteinFolding

    return EsmForProteinFolding.from_pretrained(folder).eval()


def folded(folder, *sequences):
    return EsmFold(folder, CPU).fold(sequences)


def backbones(folds):
    return torch.stack([one.backbone for one in folds])


def refused(folder) -> str:
    fault = EsmFold(folder, CPU).fault()
    assert fault is not None and "\n" not in fault
    return fault


def fails_to_load(folder) -> str:
    with pytest.raises(Exception) as caught:
        EsmFold(folder, CPU).load()
    assert type(caught.value).__name__ == "UserError" and "\n" not in str(caught.value)
    return str(caught.value)


@torch.no_grad()
def test_it_folds_as_transformers_does(made):
    judge = hugging_face(made).infer([FIRST[0], SECOND[0]])
    ours = folded(made, FIRST, SECOND)
    torch.testing.assert_close(backbones(ours), judge.positions[-1][:, :, :3], atol=1e-4, rtol=0)
    for row, one in enumerate(ours):
        torch.testing.assert_close(one.plddt, 100 * judge.plddt[row, :, 1], atol=1e-3, rtol=0)
        assert ((one.plddt > 0) & (one.plddt < 100)).all()
    assert (ours[0].backbone - ours[1].backbone).abs().max() > 0.1


def test_a_batch_equals_singles(made):
    plugin = EsmFold(made, CPU)
    together = backbones(plugin.fold([FIRST, SECOND, FIRST]))
    alone = torch.cat([backbones(plugin.fold([one])) for one in (FIRST, SECOND, FIRST)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@torch.no_grad()
def test_chains_are_joined_by_a_linker_which_is_left_out(made):
    chains = ("ACDE", "FGHIK", "LM")
    joined = ("G" * LINKER).join(chains)
    starts = [0, 4 + LINKER, 9 + 2 * LINKER]
    numbers = torch.arange(len(joined))
    for start in starts[1:]:
        numbers[start:] += GAP
    judge = hugging_face(made).infer(joined, position_ids=numbers[None]).positions[-1][0, :, :3]
    kept = [start + k for start, chain in zip(starts, chains, strict=True) for k in range(len(chain))]
    [ours] = folded(made, chains)
    torch.testing.assert_close(ours.backbone, judge[kept], atol=1e-4, rtol=0)
    assert len(ours.plddt) == 11


@pytest.mark.parametrize(
    "saved",
    [{"safe_serialization": False}, (parts := {"max_shard_size": "40KB"}), parts | {"safe_serialization": False}],
    ids=["bin", "parts", "parts in bin"],
)
def test_every_published_format_gives_the_same(made, tmp_path, saved):
    other = write_esmfold(tmp_path / "other", **saved)
    assert not (other / "model.safetensors").exists()
    assert EsmFold(other, CPU).fault() is None
    assert torch.equal(backbones(folded(other, FIRST)), backbones(folded(made, FIRST)))


def test_tables_that_a_file_lacks_are_made_again(made, folder):
    weights = load_file(folder / "model.safetensors")
    tables = {name for name in weights if name.endswith(("af2_to_esm", "inv_freq")) or "contact_head" in name}
    assert len(tables) == 5
    slim = {name: value for name, value in weights.items() if name not in tables}
    save_file(slim, folder / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(backbones(folded(folder, FIRST)), backbones(folded(made, FIRST)), atol=1e-4, rtol=0)


def test_folders_that_are_not_whole_are_refused(folder, tmp_path):
    assert "no such folder" in refused(tmp_path / "absent")
    weights = load_file(folder / "model.safetensors")
    del weights["trunk.blocks.0.pair_to_sequence.linear.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lack trunk.blocks.0.pair_to_sequence.linear.weight" in fails_to_load(folder)
    weights["trunk.blocks.0.pair_to_sequence.linear.weight"] = torch.ones(3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "cannot be loaded" in fails_to_load(folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in fails_to_load(folder)
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in refused(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    assert "lacks elsewhere.safetensors" in refused(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": ["a"]}))
    assert "names no files" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "no config.json" in refused(folder)


def test_other_models_are_refused(folder):
    plain = json.loads((folder / "config.json").read_text())
    deep = plain["esmfold_config"] | {"trunk": plain["esmfold_config"]["trunk"] | {"num_blocks": 10**9}}
    for other in (
        {"esmfold_config": None},
        {"model_type": "bert"},
        {"num_hidden_layers": 10**9},
        {"esmfold_config": deep},
    ):
        (folder / "config.json").write_text(json.dumps(plain | other))
        assert "not that of an ESMFold" in refused(folder)
    (folder / "config.json").write_text(json.dumps(plain))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "elsewhere"}))
    assert "adapter_config.json" in refused(folder)


class Runs:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_nothing_in_a_folder_is_run(made, folder, monkeypatch):
    monkeypatch.chdir(folder)
    plain = json.loads((folder / "config.json").read_text())
    code = {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "_attn_implementation": "https://example.org/kernels",
    }
    (folder / "evil.py").write_text("import os; os.system('touch executed')")
    (folder / "config.json").write_text(json.dumps(plain | code))
    assert torch.equal(backbones(folded(folder, FIRST)), backbones(folded(made, FIRST)))
    (folder / "model.safetensors").unlink()
    torch.save({"esm.encoder.x": Runs()}, folder / "pytorch_model.bin")
    assert "cannot be loaded" in fails_to_load(folder)
    assert not (folder / "executed").exists()


def test_the_hash_is_of_configuration_and_weights(made, folder):
    expected = EsmFold(made, CPU).sha256
    (folder / "README.md").write_text("more")
    assert EsmFold(folder, CPU).sha256 == expected
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert EsmFold(folder, CPU).sha256 != expected
