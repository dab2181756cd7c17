"""Cached files that were cut or altered anywhere: noticed, never used."""

import json
from random import Random

import pytest
import safetensors.torch
import torch

from app.data import cache
from app.data.cluster_cache import clusters_of_sequences
from app.data.likeness import Likeness
from app.data.structures import StructureDataset
from app.data.structures_settings import StructuresSettings
from tests.damage import damaged
from tests.data.made_structures import write


def regions(content: bytes) -> dict[str, tuple[int, int]]:
    end = 8 + int.from_bytes(content[:8], "little")
    digest = content.index(b'"sha256":"')
    middle = (end + len(content)) // 2
    return {
        "length of the header": (0, 8),
        "header": (8, end),
        "checksum": (digest, digest + 75),
        "tensors": (end, middle),
        "the last of them": (middle, len(content)),
    }


def test_files_come_back_and_are_plain_safetensors(tmp_path):
    tensors, record = {"a": torch.arange(5.0), "b": torch.eye(3)}, {"note": '"sha256":"' + "0" * 64}
    cache.save(tmp_path / "a.safetensors", tensors, record)
    loaded, told = cache.load(tmp_path / "a.safetensors")
    assert told == record and loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert torch.equal(safetensors.torch.load_file(tmp_path / "a.safetensors")["b"], torch.eye(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_every_damage_is_noticed_and_mended(tmp_path):
    write(tmp_path / "files" / "one.pdb", 50)
    settings = StructuresSettings(path=tmp_path / "files", cache_dir=tmp_path / "cache", workers=1)
    dataset = StructureDataset(settings)
    right = dataset[0]
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    whole = path.read_bytes()
    tried = 0
    for what, content in damaged(whole, regions(whole), Random(0), 20):
        path.write_bytes(content)
        with pytest.raises(cache.CacheMiss, match=path.name):
            pytest.fail(f"{what}: {cache.load(path)[1]}")
        if tried % 20 == 0:
            item = dataset[0]
            assert all(torch.equal(value, item[name]) for name, value in right.items() if name != "name"), what
            assert torch.equal(cache.load(path)[0]["0.trans_1"], right["trans_1"]), "made anew"
        tried += 1
    assert tried > 200


def test_every_damage_to_an_index_and_to_clusters_is_noticed(tmp_path):
    write(tmp_path / "files" / "one.pdb", 50)
    StructureDataset(StructuresSettings(path=tmp_path / "files", cache_dir=tmp_path / "cache", workers=1))
    clusters_of_sequences(["ACDEF" * 10, "GHIKL" * 10], Likeness(), tmp_path / "cache")
    for kind in ("index", "clusters"):
        (path,) = (tmp_path / "cache").rglob(f"*.{kind}")
        whole, tried = path.read_bytes(), 0
        for what, content in damaged(whole, regions(whole), Random(0), 20):
            tried += 1
            path.write_bytes(content)
            with pytest.raises(cache.CacheMiss, match=path.name):
                pytest.fail(f"{what}: {cache.load(path)[1]}")
        assert tried > 200


def test_a_seal_that_does_not_fit_its_file_is_no_seal(tmp_path):
    path = tmp_path / "a.safetensors"
    metadata = {"record": json.dumps({}), "sha256": "0" * 64}
    safetensors.torch.save_file({"a": torch.ones(2)}, path, metadata=metadata)
    with pytest.raises(cache.CacheMiss, match="does not match its checksum"):
        cache.load(path)
